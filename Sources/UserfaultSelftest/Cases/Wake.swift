import CUserfaultFD
import SystemPackage
import UserfaultFD

/// UFFDIO_WAKE: who goes on, who does not, and what it refuses.
enum WakeCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "wake-range", on: .eachKind,
            "UFFDIO_WAKE wakes the waiters of exactly its range, for every kind of fault",
            requires: [.threads(10)], covers: [.waking]
        ) { context in
            for kind in PageFault.Kind.lawful(on: context.memory, try UserfaultFD().supportedFeatures) {
                try wakesItsRange(kind, context)
            }
        },
        SelftestCase(
            "wake-unresolved", on: .eachKind,
            "a waiter that is woken while its page is still not right faults again, with a new message",
            covers: [.waking]
        ) { context in
            for kind in PageFault.Kind.lawful(on: context.memory, try UserfaultFD().supportedFeatures) {
                let area = try Area(context, pages: 3)
                let uffd = try UserfaultFD(features: kind.features)
                try kind.arm(area, 0..<3, with: uffd)
                var waiters = try Waiters(kind, area, [0, 1, 2], of: uffd)
                for _ in 0..<3 {
                    try uffd.wake(area.range)
                    try waiters.expectRepeated(uffd)
                }
                try uffd.expectWaiters(pending: 0, total: 3, "after three rounds of waking")
                for page in 0..<3 { try kind.resolve(area, page, with: uffd) }
                try waiters.finish("resolved")
                try uffd.expectWaiters(pending: 0, total: 0, "at the end")
            }
        },
        SelftestCase(
            "wake-unread", on: [.anon, .hugetlb],
            "UFFDIO_WAKE also wakes a waiter whose message nobody has read, and the message is gone",
            requires: [.missingFaults], covers: [.waking]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing)
            let touches = try [1, 2].map { try Touch.read(area.address($0)) }
            try uffd.waitBlocked(2)
            for touch in touches { try touch.thread.waitAsleep() }
            try uffd.expectWaiters(pending: 2, total: 2, "before anything is read")
            // Filled without waking, so that the waiter goes on and makes no new message.
            try uffd.copy(from: area.source(1..<2), to: area.page(1), options: .doNotWake)
            try uffd.wake(area.page(1))
            try touches[0].finish()
            try uffd.expectWaiters(pending: 1, total: 1, "after the wake-up of one of two unread waiters")
            try touches[1].thread.expectStillAsleep("its page was not woken")
            try uffd.expectFault(at: area.address(2), [])
            try uffd.expectNoMessage("the woken waiter's message is gone")
            try uffd.copy(from: area.source(2..<3), to: area.page(2))
            try touches[1].finish()
        },
        SelftestCase(
            "wake-many", "UFFDIO_WAKE wakes all waiters of a page, not just one",
            requires: [.threads(20)], covers: [.waking, .manyWaiters]
        ) { _ in
            let count = 16
            let guarded = try GuardedMemory(pages: 2)
            let touches = try (0..<count).map { try Touch.read(guarded.address($0 % 2) + UInt($0)) }
            try guarded.uffd.waitBlocked(count)
            for touch in touches { try touch.thread.waitAsleep() }
            var batch = EventBatch(capacity: 7)
            try guarded.uffd.read(into: &batch)
            try guarded.uffd.expectWaiters(pending: count - 7, total: count, "after 7 messages were read")
            for page in 0..<2 { try guarded.uffd.zeropage(guarded.page(page), options: .doNotWake) }

            try guarded.uffd.wake(guarded.page(0))
            for index in stride(from: 0, to: count, by: 2) { try touches[index].finish(with: 0) }
            try guarded.uffd.waitBlocked(count / 2)
            for index in stride(from: 1, to: count, by: 2) {
                try touches[index].thread.expectStillAsleep("its page was not woken")
            }
            try guarded.uffd.wake(guarded.page(1))
            for index in stride(from: 1, to: count, by: 2) { try touches[index].finish(with: 0) }
            try guarded.uffd.expectWaiters(pending: 0, total: 0, "at the end")
        },
        SelftestCase(
            "wake-refuses", on: [.anon, .hugetlb],
            "UFFDIO_WAKE of a range that cannot be is EINVAL, a bad argument EFAULT, and nobody is woken",
            requires: [.missingFaults], covers: [.waking]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing)
            var waiters = try Waiters(.missing, area, [1], of: uffd)
            for violation in RangeViolation.all(around: area.page(1)) {
                try expectErrno(
                    uffd.rawWake(start: violation.start, count: violation.count), .invalidArgument,
                    "UFFDIO_WAKE of \(violation.name)")
            }
            for pointer in BadPointer.all() {
                try expectErrno(
                    uffd.rawIoctl(CUFFD_IOC_WAKE, pointer), .badAddress, "UFFDIO_WAKE of an unreadable argument")
            }
            try waiters.expectAsleep(uffd, "every wake-up was refused")
            try uffd.copy(from: area.source(1..<2), to: area.page(1))
            try waiters.finish("resolved")
        },
        SelftestCase(
            "wake-anything",
            "UFFDIO_WAKE needs no waiter, no registration and no mapping",
            covers: [.waking]
        ) { _ in
            let uffd = try UserfaultFD()
            let page = PageSize.base.bytes
            let memory = try Mapping(anonymous: 3 * page)
            try AddressSpace.unmap(memory.page(1))
            try uffd.wake(memory.page(0))
            try uffd.wake(memory.page(1))
            try uffd.wake(memory.range)
            // Not lower: older kernels refuse what lies below vm.mmap_min_addr.
            try uffd.wake(AddressRange(start: 1 << 16, count: page))
            try uffd.wake(AddressRange(start: 1 << 16, count: 1 << 46))
            _ = memory.release()
        },
        SelftestCase(
            "wake-other-context", "UFFDIO_WAKE wakes no waiter of another userfaultfd",
            covers: [.waking, .foreignDescriptors]
        ) { _ in
            let guarded = try GuardedMemory(pages: 1)
            let touches = try guarded.touch(0..<1)
            try guarded.uffd.expectFault(at: guarded.address(0), [])
            try UserfaultFD().wake(guarded.memory.range)
            try touches[0].thread.expectStillAsleep("another userfaultfd was told to wake")
            try guarded.uffd.expectNoMessage("the waiter was not woken")
            try guarded.release(touches)
        },
    ]

    private static func wakesItsRange(_ kind: PageFault.Kind, _ context: CaseContext) throws {
        let area = try Area(context, pages: 5)
        let uffd = try UserfaultFD(features: kind.features)
        try kind.arm(area, 0..<5, with: uffd)
        var waiters = try Waiters(kind, area, Array(0..<5), of: uffd)
        for page in 0..<5 { try kind.resolve(area, page, with: uffd, wakes: false) }
        try waiters.expectAsleep(uffd, "all pages were resolved without waking")
        try uffd.expectWaiters(pending: 0, total: 5, "after resolving without waking")

        let outside = area.pageSize.bytes
        try uffd.wake(AddressRange(start: area.range.start - UInt(outside), count: outside))
        try uffd.wake(AddressRange(start: area.range.end, count: outside))
        try waiters.expectAsleep(uffd, "the pages in front and behind were woken")

        try uffd.wake(area.pages(1..<3))
        try waiters.finish("its page was woken", pages: [1, 2])
        try waiters.expectAsleep(uffd, "other pages were woken")
        try uffd.expectWaiters(pending: 0, total: 3, "after waking two pages of five")
        try uffd.wake(area.page(4))
        try waiters.finish("the last page was woken", pages: [4])
        try waiters.expectAsleep(uffd, "other pages were woken")
        try uffd.wake(area.range)
        try waiters.finish("the whole range was woken")
        try uffd.expectWaiters(pending: 0, total: 0, "at the end")
        try uffd.expectNoMessage("woken waiters of resolved pages do not fault again")
    }
}
