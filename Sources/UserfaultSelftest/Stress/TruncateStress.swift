import CSelftestSupport
import Glibc
import Synchronization
import SystemPackage
import UserfaultFD

/// Fills of every kind that race with truncation and with holes being punched.
///
/// What a fill may answer is wide here; what counts is that nothing behind the file's end can be touched once a
/// truncation has returned, and that nothing stays mapped or charged in the end.
final class TruncateStress: Sendable {
    private let stress: StressRun
    private let area: Area
    private let source: UInt
    private let uffd: UserfaultFD
    private let calls: [FillCall]
    private let crew = Crew()
    private let servers = Crew()
    private let fills = Atomic<Int>(0)
    /// Of the fills those that were done.
    private let filled = Atomic<Int>(0)
    private static let leastFills = 64
    private let truncations = Atomic<Int>(0)
    private let bytes: Int

    init(_ stress: StressRun, _ features: UserfaultFD.Features) throws {
        self.stress = stress
        area = try Area(stress.context, pages: min(64, stress.pageCount))
        source = try area.source(0..<area.pageCount).release().start
        bytes = area.range.count
        uffd = try UserfaultFD()
        calls = [FillCall.copy, .zeropage, .continue, .poison].filter { features.isSuperset(of: $0.features) }
        let minor = features.contains(.minorShmem)
        try uffd.register(area.range, modes: minor ? [.missing, .minor] : .missing)
    }

    func run() throws {
        for thread in 0..<stress.options.threadCount {
            try crew.add("filler") { [self] in try fill(SeededGenerator(seed: thread)) }
            try crew.add("toucher") { [self] in touch(SeededGenerator(seed: -thread - 1)) }
        }
        try crew.add("truncator") { [self] in try truncate(SeededGenerator(seed: 1 << 20)) }
        try crew.add("puncher") { [self] in try punch(SeededGenerator(seed: 1 << 21)) }
        try servers.add("handler") { [self] in try serve() }
        try crew.work(for: stress.options.duration, "\(Self.leastFills) pages filled and 4 truncations") { [self] in
            filled.load(ordering: .relaxed) >= Self.leastFills && truncations.load(ordering: .relaxed) >= 4
        }
        try crew.join("the racing threads stop")
        servers.stop()
        try servers.join("the handler stops")

        try area.file?.resize(to: 0)
        try expectEqual(try MappingAccount(holding: area.range.start)["Rss"], 0, "KiB still mapped of an empty file")
        try expectEqual(try area.blocks(), 0, "st_blocks of an empty file")
        stress.progress(
            "truncate: \(fills.load(ordering: .relaxed)) fills, \(filled.load(ordering: .relaxed)) of them done, \(truncations.load(ordering: .relaxed)) truncations"
        )
    }

    private func fill(_ seeded: SeededGenerator) throws {
        var generator = seeded
        while !crew.shouldStop {
            let page = Int.random(in: 0..<area.pageCount, using: &generator)
            let count = min(area.pageCount - page, Int.random(in: 1...4, using: &generator))
            try fill(calls.randomElement(using: &generator)!, area.pages(page..<page + count), page)
        }
    }

    /// One fill, with any answer that a file may give that shrinks or loses pages meanwhile.
    private func fill(_ call: FillCall, _ range: AddressRange, _ page: Int) throws {
        let answer = uffd.raw(call, range, source: source + UInt(page * area.pageSize.bytes))
        let errnos: [Errno] = [.fileExists, .badAddress, .invalidArgument, .noMemory, .resourceTemporarilyUnavailable]
        let isLawful =
            answer.errno == 0
            ? answer.word == Int64(range.count)
            : answer.word > 0
                ? answer.errno == Errno.resourceTemporarilyUnavailable.rawValue && answer.word < Int64(range.count)
                : errnos.contains { answer == .failed($0) }
        try expect(isLawful, "a lawful answer of \(call) in a race with truncation", seen: "\(answer)")
        fills.add(1, ordering: .relaxed)
        if answer.errno == 0 { filled.add(1, ordering: .relaxed) }
        // A waiter whose page could not be filled tries again, and finds the end of the file.
        if answer.errno != 0 { try uffd.wake(range) }
    }

    private func touch(_ seeded: SeededGenerator) {
        var generator = seeded
        while !crew.shouldStop {
            let page = Int.random(in: 0..<area.pageCount, using: &generator)
            _ = Touch.load(area.address(page))
            if Bool.random(using: &generator) { Touch.store(area.address(page) + 8, 1) }
        }
    }

    private func truncate(_ seeded: SeededGenerator) throws {
        var generator = seeded
        while !crew.shouldStop {
            let pages = Int.random(in: 0..<area.pageCount, using: &generator)
            try area.file?.resize(to: pages * area.pageSize.bytes)
            for page in pages..<area.pageCount {
                guard case .signal(let fault) = Touch.load(area.address(page)), fault.signal == SIGBUS else {
                    throw CaseFailure(
                        expected: "SIGBUS behind the file's end, page \(page)", seen: "the page can be read")
                }
            }
            try area.file?.resize(to: bytes)
            truncations.add(1, ordering: .relaxed)
            Threads.pause()
        }
        try area.file?.resize(to: bytes)
    }

    private func punch(_ seeded: SeededGenerator) throws {
        var generator = seeded
        while !crew.shouldStop {
            let page = Int.random(in: 0..<area.pageCount, using: &generator)
            try area.file?.punchHole(at: page * area.pageSize.bytes, count: area.pageSize.bytes)
            Threads.pause()
        }
    }

    private func serve() throws {
        var batch = EventBatch(capacity: 16)
        while !servers.shouldStop {
            guard try uffd.poll(timeout: .milliseconds(10)) else { continue }
            try uffd.read(into: &batch)
            while let fault = batch.nextPageFault() {
                let page = fault.page(size: area.pageSize)
                let index = Int(page.start - area.range.start) / area.pageSize.bytes
                try fill(fault.kind == .minor ? .continue : .copy, page, index)
            }
        }
    }
}
