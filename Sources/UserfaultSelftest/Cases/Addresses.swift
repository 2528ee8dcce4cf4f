import SystemPackage
import UserfaultFD

/// What a message tells of the access: the address, with EXACT_ADDRESS the exact one, and with THREAD_ID the thread.
enum AddressCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "address-of-page", on: .all, "without EXACT_ADDRESS a message names the page, on hugetlbfs the huge page",
            requires: [.missingFaults, .hugePages(128)], covers: [.exactAddresses]
        ) { context in
            try faults(context, features: [])
        },
        SelftestCase(
            "address-exact", on: .all, "with EXACT_ADDRESS a message names the byte, of every kind of fault",
            requires: [.missingFaults, .features(.exactAddress), .hugePages(128)], covers: [.exactAddresses]
        ) { context in
            try faults(context, features: .exactAddress)
        },
        SelftestCase(
            "address-of-waiter", on: [.hugetlb],
            "a waiter is woken by its message's address: of the huge page, or with EXACT_ADDRESS of the byte",
            requires: [.missingFaults, .features(.exactAddress)], covers: [.exactAddresses, .waking]
        ) { context in
            let page = PageSize.base.bytes
            for isExact in [false, true] {
                let area = try Area(context, pages: 2)
                let uffd = try area.registered(.missing, features: isExact ? .exactAddress : [])
                let start = area.range.part(at: 0, count: page)
                let middle = area.range.part(at: 5 * page, count: page)
                let touch = try Touch.read(middle.start + 0x123)
                try uffd.expectFault(at: isExact ? middle.start + 0x123 : start.start, [])
                try touch.thread.waitAsleep()
                try uffd.wake(isExact ? start : middle)
                try touch.thread.expectStillAsleep("another part of the huge page was woken")
                try uffd.expectNoMessage("nobody was woken")
                try uffd.wake(isExact ? middle : start)
                try uffd.expectFault(at: isExact ? middle.start + 0x123 : start.start, [])
                try uffd.copy(from: area.source(0..<1), to: area.page(0))
                try touch.finish()
            }
        },
        SelftestCase(
            "thread-id", "with THREAD_ID a message names the thread that faulted, without it none",
            requires: [.features(.threadID)], covers: [.threadIDs]
        ) { _ in
            let named = try GuardedMemory(pages: 3, features: .threadID)
            var touches: [Touch] = []
            for page in 0..<3 {
                let touch = try Touch.read(named.address(page))
                try named.uffd.expectFault(at: named.address(page), [], thread: touch.thread.threadID)
                touches.append(touch)
            }
            try named.release(touches)
            let nameless = try GuardedMemory(pages: 1)
            let touch = try Touch.read(nameless.address(0))
            try nameless.uffd.expectFault(at: nameless.address(0), [], thread: 0)
            try nameless.release([touch])
        },
    ]

    private static func offsets(_ context: CaseContext) throws -> [Int] {
        let page = PageSize.base.bytes
        let huge =
            context.memory.isHugetlb ? [page, 5 * page + 0x123, (PageSize.defaultHuge ?? .twoMiB).bytes - 1] : []
        return [0, 1, 0x123, page - 1] + huge
    }

    /// Faults of every kind at all offsets into page 1.
    private static func faults(_ context: CaseContext, features: UserfaultFD.Features) throws {
        let area = try Area(context, pages: 3)
        for kind in PageFault.Kind.lawful(on: context.memory, try UserfaultFD().supportedFeatures) {
            for offset in try offsets(context) {
                try area.empty()
                let uffd = try UserfaultFD(features: kind.features.union(features))
                try kind.arm(area, 0..<3, with: uffd)
                let address = area.address(1) + UInt(offset)
                let touch = kind == .writeProtect ? try Touch.write(address, 0xEE) : try Touch.read(address)
                try uffd.expectFault(at: features.isEmpty ? area.address(1) : address, kind.flags)
                try kind.resolve(area, 1, with: uffd)
                try touch.finish("resolving the page wakes the waiter at offset \(offset)")
                try uffd.expectNoMessage("resolved")
            }
        }
    }
}
