import CUserfaultFD
import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Many threads fault, drop, move, unmap and fork at once, and every byte that is read is right.
@Suite(.serialized, .timeLimit(.minutes(240)))
struct StormTests {
    /// What one storm is.
    struct Plan {
        var faults: UInt64
        var service: PagerConfiguration.Service
        var handlers = 1
        var forks = false
        var threads = 8
    }

    /// How many faults each test of this suite serves: a thousandth of what `Scripts/pager-storm.sh` asks for.
    static let faults = UInt64(getenv("PAGER_STORM_FAULTS").flatMap { String(cString: $0) } ?? "") ?? 10_000

    // Each in a process of its own, so that what it holds at its end is its own.

    @Test
    func handlersThatServeInPlace() async {
        await #expect(processExitsWith: .success) {
            try StormTests.storm(Plan(faults: StormTests.faults, service: .inline, handlers: 2))
        }
    }

    @Test(.followsForks)
    func workersAndForks() async {
        await #expect(processExitsWith: .success) {
            try StormTests.storm(Plan(faults: StormTests.faults, service: .workers(3), forks: true))
        }
    }

    static func storm(_ plan: Plan) throws {
        var features: UserfaultFD.Features = [.eventRemove, .eventUnmap, .eventRemap]
        if plan.forks { features.insert(.eventFork) }
        // Everything that is allocated once is allocated now.
        try run(Plan(faults: 200, service: plan.service, handlers: plan.handlers, forks: plan.forks), features)
        let before = Footprint()
        try run(plan, features)
        let after = Footprint()
        #expect(after.descriptors == before.descriptors)
        // A sanitizer's own memory grows.
        guard !Sanitizer.isThere else { return }
        #expect(after.mappings <= before.mappings + 16)
        #expect(after.kibibytes < before.kibibytes + 65_536)
    }

    private static func run(_ plan: Plan, _ features: UserfaultFD.Features) throws {
        let pager = try Pager(
            UserfaultFD(features: features), source: NumberedSource(),
            configuration: PagerConfiguration(service: plan.service, handlers: plan.handlers))
        try pager.start()
        let failure = Shared(Mutex<String?>(nil))
        let isOver = Shared(Atomic<Bool>(false))
        let touchers = (0..<plan.threads).map { number in
            Toucher {
                var stormer = Stormer(seed: UInt64(number) + 1, forks: plan.forks && number == 0)
                while !isOver.value.load(ordering: .relaxed) {
                    guard let wrong = stormer.round(pager) else { continue }
                    failure.value.withLock { $0 = wrong }
                    isOver.value.store(true, ordering: .relaxed)
                }
            }
        }
        while pager.statistics.faults < plan.faults, !isOver.value.load(ordering: .relaxed) {
            var word: UInt32 = 0
            _ = cuffd_futex_wait(&word, 0, 10_000_000)
        }
        isOver.value.store(true, ordering: .relaxed)
        for toucher in touchers { #expect(toucher.join(seconds: 50), "a thread is stuck") }
        #expect(failure.value.withLock { $0 } == nil)
        for memory in pager.core.memories {
            let status = try memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.status() }
            #expect(status.pending == 0)
            #expect(status.total == 0)
        }
        #expect(pager.statistics.failures == 0)
        #expect(pager.statistics.pagesPoisoned == 0)
        try pager.stop(.poison)
    }
}

/// One thread of a storm: maps memory, reads it, changes it, and knows what it must hold.
struct Stormer {
    private static let pages = 96
    private var random: SplitMix
    private let forks: Bool

    init(seed: UInt64, forks: Bool) {
        random = SplitMix(state: seed)
        self.forks = forks
    }

    /// One life of a mapping.
    ///
    /// - Returns: What was wrong, or `nil`.
    mutating func round(_ pager: Pager<NumberedSource>) -> String? {
        do {
            let mapping = try Mapping(anonymous: Self.pages * 4096)
            let offset = random.below(1 << 20) * 4096
            let readAhead = [RegionOptions.ReadAhead.none, .adaptive(maximumPages: 8), .adaptive()][random.below(3)]
            let region = try pager.add(mapping.range, offset: offset, options: RegionOptions(readAhead: readAhead))
            var memory = mapping.release()
            defer { _ = cuffd_munmap(UInt64(memory.start), memory.count) }
            var isZero = [Bool](repeating: false, count: Self.pages)
            for _ in 0..<random.below(6) {
                if let wrong = read(memory, offset, isZero) { return wrong }
                change(&memory, &isZero)
                if forks, random.below(8) == 0, !child(memory, offset, isZero) { return "a child read something else" }
            }
            if let wrong = read(memory, offset, isZero) { return wrong }
            if random.below(4) == 0 {
                try pager.populate(region)
                if let wrong = read(memory, offset, isZero) { return wrong }
            }
            return nil
        } catch {
            return "\(error)"
        }
    }

    /// Reads some pages, in order or not.
    private mutating func read(_ memory: AddressRange, _ offset: Int, _ isZero: [Bool]) -> String? {
        let first = random.below(Self.pages)
        let stride = random.below(2) == 0 ? 1 : 17
        for step in 0..<random.below(Self.pages) {
            let page = (first + step * stride) % Self.pages
            let found = memory.loadWord(page * 4096 + 8 * random.below(512))
            let expected = isZero[page] ? 0 : NumberedSource.word(offset + page * 4096)
            if found != expected { return "page \(page) holds \(found) in place of \(expected)" }
        }
        return nil
    }

    private mutating func change(_ memory: inout AddressRange, _ isZero: inout [Bool]) {
        let first = random.below(Self.pages - 16)
        let count = 1 + random.below(16)
        switch random.below(3) {
        case 0:
            _ = cuffd_madvise(UInt64(memory.start) + UInt64(first * 4096), count * 4096, Advice.dontNeed.rawValue)
            for page in first..<first + count { isZero[page] = true }
        case 1:
            guard let target = try? Mapping(anonymous: memory.count) else { return }
            var address = UInt64(target.release().start)
            let answer = cuffd_mremap(
                UInt64(memory.start), memory.count, memory.count, CUFFD_MREMAP_MAYMOVE | CUFFD_MREMAP_FIXED, &address)
            if answer >= 0 { memory = AddressRange(start: UInt(address), count: memory.count) }
        default:
            break
        }
    }

    /// What a child reads of some pages.
    private func child(_ memory: AddressRange, _ offset: Int, _ isZero: [Bool]) -> Bool {
        let status = isZero.withUnsafeBufferPointer { isZero in
            inFork {
                for page in Swift.stride(from: 0, to: Self.pages, by: 5) {
                    let expected = isZero[page] ? 0 : NumberedSource.word(offset + page * 4096)
                    if memory.loadWord(page * 4096) != expected { return 1 }
                }
                return 0
            }
        }
        return status == 0
    }
}

/// What the process takes, as the kernel counts it.
struct Footprint {
    let descriptors: Int
    let mappings: Int
    let kibibytes: Int

    init() {
        descriptors = Self.entries("/proc/self/fd")
        mappings = Self.text("/proc/self/maps").split(separator: "\n").count
        let resident = Self.text("/proc/self/status").split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
        kibibytes = resident.flatMap { Int($0.filter(\.isNumber)) } ?? 0
    }

    private static func entries(_ path: String) -> Int {
        guard let directory = opendir(path) else { return -1 }
        defer { closedir(directory) }
        var count = 0
        while readdir(directory) != nil { count += 1 }
        return count
    }

    private static func text(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 65_536)
        while case let read = fread(&part, 1, part.count, file), read > 0 { bytes += part[..<read] }
        return String(decoding: bytes, as: UTF8.self)
    }
}
