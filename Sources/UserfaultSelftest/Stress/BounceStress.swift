import CSelftestSupport
import Synchronization
import SystemPackage
import UserfaultFD

/// Upstream's scheme: two areas change places, and every kind of thread works on the missing one at once.
///
/// A page begins with a lock and a counter; the rest is its pattern. Locking threads count pages up and compare with
/// their own count, fault threads copy pages in from the other area, and background threads copy and write-protect whole
/// slices. Every COPY that succeeds is made again, which must be EEXIST.
final class BounceStress: Sendable {
    private let stress: StressRun
    private let pages: Int
    private let threads: Int
    private let isProtecting: Bool
    /// How often each page was counted up, changed under the page's own lock.
    nonisolated(unsafe) private let counts: UnsafeMutablePointer<UInt64>

    init(_ run: StressRun, _ features: UserfaultFD.Features) throws {
        stress = run
        threads = run.options.threadCount
        pages = try run.pageCount
        let needed: UserfaultFD.Features =
            run.options.memory == .anon ? .writeProtectUnpopulated : .writeProtectHugetlbfsShmem
        isProtecting = features.isSuperset(of: [.writeProtect, needed])
        counts = .allocate(capacity: pages)
        counts.initialize(repeating: 1, count: pages)
    }

    deinit { counts.deallocate() }

    func run() throws {
        var source = try Area(stress.context, pages: pages)
        var destination = try Area(stress.context, pages: pages)
        for page in 0..<pages { prepare(source, page) }
        for bounce in stress.options.bounces {
            let mode = BounceMode(rawValue: bounce)
            let statistics = try Bounce(self, mode, number: bounce, source: source, destination: destination).run()
            stress.progress("bounces: \(bounce), mode: \(mode), userfaults: \(statistics)")
            swap(&source, &destination)
        }
    }

    private func prepare(_ area: Area, _ page: Int) {
        Pattern.write(seed: 0, page: page, at: area.address(page), count: area.pageSize.bytes)
        let head = UnsafeMutablePointer<css_stressed_page>(bitPattern: area.address(page))!
        head.pointee = css_stressed_page(lock: 0, counter: 1)
    }

    /// One change of places.
    private struct Bounce {
        let stress: BounceStress
        let mode: BounceMode
        let number: Int
        let source: Area
        let destination: Area
        let server: FaultServer

        init(_ stress: BounceStress, _ mode: BounceMode, number: Int, source: Area, destination: Area) throws {
            self.stress = stress
            self.mode = mode
            self.number = number
            self.source = source
            self.destination = destination
            server = try FaultServer(
                destination, from: source, threads: stress.threads, polls: mode.contains(.poll),
                isProtecting: stress.isProtecting)
        }

        func run() throws -> FaultServer.Statistics {
            try release(destination)
            let lockers = Crew()
            let fillers = Crew()
            for cpu in 0..<stress.threads {
                try lockers.add("locker") { [self] in try lock(cpu, until: lockers) }
                try fillers.add("filler") { [self] in try fill(cpu) }
            }
            try fillers.join("the background threads copy their slices")
            try release(source)
            lockers.stop()
            try lockers.join("the locking threads stop")
            let statistics = try server.stop()
            try expect(statistics.missing >= stress.pages, "each page is copied in", seen: "\(statistics)")
            if mode.contains(.verify) { try verify() }
            return statistics
        }

        private func release(_ area: Area) throws {
            let advice: Advice = area.memory.isPrivate ? .dontNeed : .remove
            let answer = RawMemory.advise(area.range, advice)
            if answer == -Errno.invalidArgument.rawValue, area.memory.isHugetlb {
                throw StressSkip(reason: "the kernel does not drop pages of hugetlbfs (Linux 5.18)")
            }
            try expectEqual(answer, 0, "answer of madvise")
            // A late COPY may have read a hole of a private mapping, which gave the file a page of zeros.
            if area.memory.isPrivate { try area.file?.punchHole(at: 0, count: area.range.count) }
        }

        private func lock(_ cpu: Int, until crew: Crew) throws {
            var generator = SeededGenerator(seed: number << 8 | (mode.contains(.racing) ? 0 : cpu))
            let slice = stress.pages / stress.threads
            var next = mode.contains(.racing) ? number : number + cpu * slice
            while !crew.shouldStop {
                next = mode.contains(.random) ? Int(generator.next() >> 33) : next + 1
                let page = next % stress.pages
                let head = UnsafeMutablePointer<css_stressed_page>(bitPattern: destination.address(page))!
                var seen: UInt64 = 0
                guard css_stress_bump(head, stress.counts + page, &seen) == 0 else {
                    throw CaseFailure(
                        expected: "counter of page \(page): \(stress.counts[page] - 1)", seen: "\(seen) (mode \(mode))")
                }
            }
        }

        /// Copies a slice, and protects it when it is half copied.
        private func fill(_ cpu: Int) throws {
            let slice = stress.pages / stress.threads
            let first = cpu * slice
            for page in first..<first + slice {
                if page == first + slice / 2 && stress.isProtecting {
                    try server.protect(destination.pages(first..<first + slice))
                }
                try server.copy(page)
            }
        }

        private func verify() throws {
            for page in 0..<stress.pages {
                let address = destination.address(page)
                let head = UnsafePointer<css_stressed_page>(bitPattern: address)!.pointee
                try expectEqual(head.counter, stress.counts[page], "counter of page \(page) (mode \(mode))")
                let words = UnsafePointer<UInt64>(bitPattern: address)!
                for index in 2..<destination.pageSize.bytes / 8 {
                    let right = Pattern.word(seed: 0, page: page, index: index)
                    guard words[index] == right else {
                        throw CaseFailure(
                            expected: "page \(page), word \(index): \(Pattern.hex(right))",
                            seen: Pattern.hex(words[index]))
                    }
                }
            }
        }
    }
}
