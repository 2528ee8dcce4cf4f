import Synchronization
import SystemPackage
import UserfaultFD

/// Upstream's `events` and `events-wp`: a child's whole life is served, through fork, mremap and madvise.
enum EventsCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "events", on: .all,
            "a child's faults are served through fork, mremap and madvise, one message for each page",
            requires: [.root, .missingFaults, .features([.eventFork, .eventRemap, .eventRemove])],
            covers: [.upstream]
        ) { context in
            try serveChild(context, isProtected: false)
        },
        SelftestCase(
            "events-wp", on: .all,
            "a child's missing and write-protect faults are served through fork, mremap and madvise",
            requires: [
                .root, .missingFaults, .writeProtectFaults, .features([.eventFork, .eventRemap, .eventRemove]),
            ],
            covers: [.upstream]
        ) { context in
            try serveChild(context, isProtected: true)
        },
    ]

    private static func serveChild(_ context: CaseContext, isProtected: Bool) throws {
        let area = try Area(context, pages: 4)
        let target = try reserve(area.range.count, alignment: area.pageSize.bytes)
        let parent = Handler.Descriptor(try UserfaultFD(features: [.eventFork, .eventRemap, .eventRemove]))
        try parent.uffd.register(area.range, modes: isProtected ? [.missing, .writeProtect] : .missing)

        let server = try Server(area, parent, isProtected: isProtected)
        var steps: [Child.Step] = []
        for page in 0..<2 { steps += [.load(area.address(page)), .store(area.address(page), 0xAB)] }
        steps.append(.remap(area.range, to: target.start))
        let moved = (0..<4).map { target.part(at: $0 * area.pageSize.bytes, count: area.pageSize.bytes) }
        for page in 2..<4 { steps += [.load(moved[page].start), .store(moved[page].start, 0xAB)] }
        steps += moved.map { .load($0.start) }
        // A shared file's pages are dropped with their place in the file, private ones from the mapping.
        steps.append(.advise(target, area.memory.isPrivate ? .dontNeed : .remove))
        steps += moved.map { .count($0, of: 0) }

        let results = try Child(steps).finish()
        let counts = try server.stop()

        if area.memory.isHugetlb, results[4] < 0 { try KernelLack.hugePageMoves.check(Int32(clamping: results[4])) }
        for page in 0..<4 {
            let index = page < 2 ? 2 * page : 2 * page + 1
            let first = Int64(Pattern.byte(page: page))
            try expectEqual(results[index], first, "byte that the child read of page \(page)")
            try expectEqual(results[index + 1], 0, "answer of the child's store to page \(page)")
            try expectEqual(results[9 + page], 0xAB, "byte that the child wrote to page \(page)")
        }
        try expectEqual(results[4], Int64(target.start), "answer of mremap")
        if area.memory.isHugetlb, results[13] == -Int64(Errno.invalidArgument.rawValue) {
            context.record("madvise of hugetlbfs is not there (before Linux 5.18)")
        } else {
            try expectEqual(results[13], 0, "answer of madvise")
            for page in 0..<4 {
                try expectEqual(
                    results[14 + page], Int64(area.pageSize.bytes), "zero bytes of page \(page) after madvise")
            }
            try expectEqual(counts.events, 2, "remap and remove events")
        }
        try expectEqual(counts.missing, 4, "missing faults: one for each page")
        try expectEqual(counts.writeProtect, isProtected ? 4 : 0, "write-protect faults: one for each protected page")
        try parent.uffd.expectNoMessage("everything was the child's")
    }

    /// Serves one forked child through the descriptor that its fork event brings.
    private struct Server {
        private let call: BackgroundCall<Handler.Counts>
        private let stopped = Flag()

        private final class Flag: Sendable {
            let isSet = Atomic<Bool>(false)
        }

        init(_ area: Area, _ parent: Handler.Descriptor, isProtected: Bool) throws {
            let stopped = stopped
            call = try BackgroundCall("server") {
                let uffd = try parent.uffd.expectFork()
                let contents = try area.source(0..<area.pageCount)
                // Where the pages are; nowhere once they are removed.
                var base: UInt? = area.range.start
                var counts = Handler.Counts()
                var batch = EventBatch(capacity: 4)
                while !stopped.isSet.load(ordering: .acquiring) {
                    guard try uffd.poll(timeout: .milliseconds(10)) else { continue }
                    try uffd.read(into: &batch)
                    while let event = batch.next() {
                        switch consume event {
                        case .pagefault(let fault):
                            if try Self.resolve(fault, uffd, area, contents, base, isProtected: isProtected) {
                                counts.add(fault.kind)
                            }
                        case .remap(_, let to, _):
                            base = to
                            counts.events += 1
                        case .remove(let range):
                            counts.events += 1
                            try uffd.unregister(range)
                            base = nil
                        default:
                            throw CaseFailure(expected: "a fault, remap or remove", seen: "another event")
                        }
                    }
                }
                return counts
            }
        }

        /// Answers whether the fault was one to resolve: the kernel may repeat one that was resolved before.
        private static func resolve(
            _ fault: PageFault, _ uffd: borrowing UserfaultFD, _ area: Area, _ contents: borrowing Mapping,
            _ base: UInt?, isProtected: Bool
        ) throws -> Bool {
            let page = fault.page(size: area.pageSize)
            if fault.kind == .writeProtect {
                try uffd.writeProtect(page, .unprotect)
                return true
            }
            // From before a move nobody waits there any more. Unregistering wakes those who came after the removal, but
            // may miss who comes at the very moment.
            guard let base, AddressRange(start: base, count: area.range.count).contains(page) else {
                try uffd.wake(page)
                return false
            }
            let mode = isProtected ? UserfaultFD.CopyOptions.writeProtect.rawValue : 0
            let answer = uffd.raw(.copy, page, source: contents.range.start + (page.start - base), mode: mode)
            switch answer {
            case .done(area.pageSize.bytes): return true
            case .failed(.fileExists), .failed(.resourceTemporarilyUnavailable):
                // Whoever waits looks again, and makes a new message where the page is not there yet.
                try uffd.wake(page)
                return false
            default: throw CaseFailure(expected: "COPY: done, EEXIST or EAGAIN", seen: "\(answer)")
            }
        }

        func stop() throws -> Handler.Counts {
            stopped.isSet.store(true, ordering: .releasing)
            return try call.finish("the server stops")
        }
    }
}
