import Synchronization

@testable import UserfaultFD

/// Arbitrary arguments of a scan, on the kernel: an answer and no trap, no limit exceeded, and nothing lost.
///
/// Compiled with libFuzzer by the fuzzing script, together with a copy of the library that is instrumented.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    var bytes = Arguments(left: UnsafeBufferPointer(start: start, count: count)[...])
    // The same from every input: what is found to crash must do so again.
    Ground.shared.reset()
    while !bytes.left.isEmpty { Ground.shared.step(&bytes) }
    return 0
}

private struct Arguments {
    var left: Slice<UnsafeBufferPointer<UInt8>>

    mutating func byte() -> UInt8 { left.popFirst() ?? 0 }

    mutating func word() -> UInt64 { (0..<8).reduce(0) { word, _ in word << 8 | UInt64(byte()) } }

    /// Mostly small, sometimes anything.
    mutating func limit() -> Int? {
        switch byte() % 8 {
        case 0: nil
        case 1: Int(truncatingIfNeeded: word())
        case 2: .max
        default: Int(byte()) % 20
        }
    }
}

/// What the fuzzer cannot do without.
private func must<Value: ~Copyable>(_ body: () throws -> Value) -> Value {
    do { return try body() } catch { fatalError("\(error)") }
}

/// Sixteen pages that are tracked, sixteen that are not, and what is known of them.
private final class Ground: @unchecked Sendable {
    static let shared = must { try Ground() }
    private static let tracked = 16

    private let memory: Mapping
    private let uffd: UserfaultFD
    private let scan: PagemapScan
    private var written: Set<Int> = []

    init() throws {
        memory = try Mapping(anonymous: 2 * Self.tracked * PageSize.base.bytes)
        try memory.advise(.noHugePage)
        uffd = try UserfaultFD(features: .writeProtectAsync)
        scan = try PagemapScan()
        try uffd.register(trackedRange, modes: .writeProtect)
        for page in 0..<memory.pageCount { store(page) }
    }

    func reset() {
        must { try scan.writeProtect(trackedRange) }
        written = []
    }

    private var trackedRange: AddressRange { memory.range.part(at: 0, count: Self.tracked * PageSize.base.bytes) }

    private func store(_ page: Int) {
        UnsafeMutablePointer<UInt8>(bitPattern: memory.page(page).start)!.pointee = 1
    }

    func step(_ bytes: inout Arguments) {
        switch bytes.byte() % 4 {
        case 0:
            let page = Int(bytes.byte()) % Self.tracked
            store(page)
            written.insert(page)
        case 1: takeWritten(&bytes)
        default: look(&bytes)
        }
    }

    /// Takes dirty pages with arbitrary limits, over tracked memory and beyond: none is ever lost or invented.
    private func takeWritten(_ bytes: inout Arguments) {
        let first = Int(bytes.byte()) % Self.tracked
        let last = Int(bytes.byte()) % memory.pageCount
        let range = AddressRange(start: memory.page(first).start, end: memory.page(last).end)
        var query = PagemapScan.Query.takeWritten
        query.pageLimit = bytes.limit()
        let limit = bytes.limit()
        do throws(PagemapScan.Failure) {
            let result = try scan.scan(range, for: query, regionLimit: limit)
            check(result.regions, range, query, limit)
            take(result.regions)
            let done = AddressRange(start: range.start, end: result.end)
            precondition(!written.contains { done.contains(memory.page($0)) && range.contains(memory.page($0)) })
        } catch {
            take(error.regions)
        }
    }

    private func take(_ regions: [PagemapScan.Region]) {
        for region in regions {
            for page in 0..<memory.pageCount where region.range.contains(memory.page(page)) {
                precondition(written.remove(page) != nil, "page \(page) was not written")
            }
        }
    }

    /// Arbitrary queries that change nothing.
    private func look(_ bytes: inout Arguments) {
        let range = AddressRange(
            start: memory.range.start &+ UInt(truncatingIfNeeded: bytes.byte() & 1 == 0 ? 0 : bytes.word()),
            end: memory.range.end &+ UInt(truncatingIfNeeded: bytes.byte() & 1 == 0 ? 0 : bytes.word()))
        func categories() -> PagemapScan.Categories {
            .init(rawValue: UInt64(bytes.byte()) | UInt64(bytes.byte() & 1) << 40)
        }
        let query = PagemapScan.Query(
            all: categories(), any: categories(), inverted: categories(), reported: categories(),
            requiresWriteProtectAsync: bytes.byte() & 7 == 0, pageLimit: bytes.limit())
        // A whole address space without a limit is a lawful question that takes long to answer.
        let limit = min(bytes.limit() ?? 4096, 4096)
        guard let result = try? scan.scan(range, for: query, regionLimit: limit) else { return }
        check(result.regions, range, query, limit)
    }

    private func check(
        _ regions: [PagemapScan.Region], _ range: AddressRange, _ query: PagemapScan.Query, _ limit: Int?
    ) {
        precondition(regions.count <= limit ?? .max)
        var position = range.start
        var pages = 0
        for region in regions {
            precondition(
                !region.range.isEmpty && region.range.start >= position,
                "\(region.range) after \(position) in \(range), \(query), at most \(limit ?? -1) regions")
            position = region.range.end
            pages += region.range.count / PageSize.base.bytes
        }
        precondition(pages <= query.pageLimit ?? .max)
    }
}
