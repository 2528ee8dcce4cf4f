import Synchronization
import SystemPackage
import UserfaultFD

/// Minor faults from many threads while the mapping is dropped again and again.
///
/// Every page is in the file before, and must be there unharmed afterwards: each CONTINUE is made twice, so that its
/// EEXIST path runs as often as the other. On a private mapping writers make copies, which must never reach the file.
final class MinorStress: Sendable {
    private let stress: StressRun
    private let area: Area
    private let uffd: UserfaultFD
    private let crew = Crew()
    private let servers = Crew()
    private let touched = Atomic<Int>(0)
    private let continued = Atomic<Int>(0)
    private let alreadyMapped = Atomic<Int>(0)

    init(_ stress: StressRun) throws {
        self.stress = stress
        area = try Area(stress.context, pages: try stress.pageCount)
        uffd = try UserfaultFD()
        try area.fillFile()
        try uffd.register(area.range, modes: .minor)
    }

    func run() throws {
        let blocks = try area.blocks()
        for thread in 0..<stress.options.threadCount {
            try servers.add("handler") { [self] in try serve() }
            try crew.add("toucher") { [self] in try touch(SeededGenerator(seed: thread)) }
        }
        try crew.add("zapper") { [self] in try zap(SeededGenerator(seed: -1)) }
        try crew.work(for: stress.options.duration, "one touch and one CONTINUE for each page") { [self] in
            min(touched.load(ordering: .relaxed), continued.load(ordering: .relaxed)) >= area.pageCount
        }
        try crew.join("the touching threads stop")
        servers.stop()
        try servers.join("the handlers stop")
        for page in 0..<area.pageCount { try area.expectFile(page, "the file after the stress") }
        try expectEqual(try area.blocks(), blocks, "st_blocks after the stress")
        try uffd.expectWaiters(pending: 0, total: 0)
        stress.progress(
            "minor: \(touched.load(ordering: .relaxed)) touches, \(continued.load(ordering: .relaxed)) continued, "
                + "\(alreadyMapped.load(ordering: .relaxed)) already mapped")
    }

    private func touch(_ seeded: SeededGenerator) throws {
        var generator = seeded
        let words = area.pageSize.bytes / 8
        while !crew.shouldStop {
            let page = Int.random(in: 0..<area.pageCount, using: &generator)
            let memory = UnsafeMutablePointer<UInt64>(bitPattern: area.address(page))!
            // Word 3 is where a private mapping is written, which its file must not see.
            if area.memory.isPrivate, Bool.random(using: &generator) { memory[3] = 0 }
            for index in [0, 7, words / 2, words - 1] {
                let right = Pattern.word(seed: 0, page: page, index: index)
                let seen = memory[index]
                guard seen == right else {
                    throw CaseFailure(
                        expected: "page \(page), word \(index): \(Pattern.hex(right))", seen: Pattern.hex(seen))
                }
            }
            touched.add(1, ordering: .relaxed)
        }
    }

    private func zap(_ seeded: SeededGenerator) throws {
        var generator = seeded
        while !crew.shouldStop {
            let first = Int.random(in: 0..<area.pageCount, using: &generator)
            let last = min(area.pageCount, first + Int.random(in: 1...16, using: &generator))
            let range = area.pages(first..<last)
            let answer = RawMemory.advise(range, .dontNeed)
            // Before Linux 5.18 hugetlbfs cannot be dropped so: each page faults once.
            if answer == -Errno.invalidArgument.rawValue, area.memory.isHugetlb { return }
            try expectEqual(answer, 0, "answer of madvise")
            // Whoever is slow must be able to touch a page before it is dropped again.
            let seen = touched.load(ordering: .relaxed)
            repeat { Threads.pause() } while touched.load(ordering: .relaxed) == seen && !crew.shouldStop
        }
    }

    private func serve() throws {
        var batch = EventBatch(capacity: 16)
        while !servers.shouldStop {
            guard try uffd.poll(timeout: .milliseconds(10)) else { continue }
            try uffd.read(into: &batch)
            while let fault = batch.nextPageFault() {
                try expectEqual(fault.kind, .minor, "kind of the fault at \(fault)")
                let page = fault.page(size: area.pageSize)
                try resume(page)
                try resume(page)
            }
        }
    }

    /// Continues a page.
    ///
    /// A page that is mapped already is as good, but its waiters were not woken.
    private func resume(_ page: AddressRange) throws {
        while true {
            let answer = uffd.raw(.continue, page)
            switch answer {
            case .done(area.pageSize.bytes):
                continued.add(1, ordering: .relaxed)
                return
            case .failed(.fileExists):
                alreadyMapped.add(1, ordering: .relaxed)
                try uffd.wake(page)
                return
            case .failed(.resourceTemporarilyUnavailable):
                continue
            default:
                throw CaseFailure(expected: "CONTINUE of a page of the file: done or EEXIST", seen: "\(answer)")
            }
        }
    }
}
