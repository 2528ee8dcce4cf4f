import Glibc
import SystemPackage
import UserfaultFD

/// mremap that fails when some of the pages have moved already, because there is no memory for page tables.
enum RemapFailureCases: CaseTheme {
    /// More page tables than fit into what is left, whatever the kernel has charged in advance.
    private static let tables = 256
    private static let reach = PageSize.transparentHuge.bytes
    private static let addressSpace = min(Means.muchAddressSpace, (2 * tables + 4) * reach >> 20 + 256)

    static let cases: [SelftestCase] = [
        SelftestCase(
            "event-remap-no-memory", on: [.anon],
            "mremap that fails half-way makes no event: the memory is as it was, and the descriptor fills pages as before",
            requires: [.missingFaults, .features(.eventRemap), .memoryGroup, .addressSpace(addressSpace)],
            limit: .seconds(20), covers: [.remapEvent]
        ) { context in
            // At its new place each page has another index, so that no table moves as a whole.
            let hasFailed = try fail(context, features: .eventRemap, offset: PageSize.base.bytes)
            guard hasFailed else { try context.skip(thisTime: "there was memory for all page tables") }
        },
        SelftestCase(
            "event-remap-no-memory-not-enabled", on: [.anon],
            "mremap without EVENT_REMAP that fails half-way leaves the memory registered and as it was",
            requires: [.missingFaults, .memoryGroup, .addressSpace(addressSpace)], limit: .seconds(20),
            covers: [.remapEvent]
        ) { context in
            let page = PageSize.base.bytes
            let failed = try [0, page].filter { try fail(context, features: [], offset: $0) }
            context.record("mremap failed with pages at the same index in their tables: \(failed.contains(0))")
            guard failed.contains(page) else { try context.skip(thisTime: "there was memory for all page tables") }
        },
    ]

    /// Lets mremap fail, to so many bytes behind the start of a page table; answers whether it did.
    private static func fail(_ context: CaseContext, features: UserfaultFD.Features, offset: Int) throws -> Bool {
        try context.joinMemoryGroup(limit: 256 << 20)
        let size = PageSize.base.bytes
        let memory = try reserve(tables * reach, alignment: reach)
        _ = try RawMemory.mapAnonymous(
            at: memory.start, count: memory.count, flags: MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE)
        try checked(RawMemory.advise(memory, .noHugePage))
        // One page in each page table.
        let pages = (0..<tables).map { memory.part(at: $0 * reach, count: size) }
        for (index, page) in pages.enumerated() { Pattern.write(seed: 0, page: index, at: page.start, count: size) }
        let target = try reserve((tables + 1) * reach, alignment: reach).part(at: offset, count: memory.count)
        let uffd = try UserfaultFD(features: features)
        try uffd.register(memory, modes: .missing)
        let call = try BackgroundCall { () -> Errno? in
            try context.withShortMemory(bytes: 32 * size) {
                do throws(Errno) { _ = try Remapping.move(memory, to: target) } catch { return error }
                return nil
            }
        }
        try call.waitEvent(of: uffd)
        if try uffd.poll(timeout: .zero) { try uffd.expectRemap(memory, to: target.start) }
        let error = try call.finish("mremap returns")
        guard let error else { return false }
        try expectEqual(error, .noMemory, "errno of mremap without memory for page tables")
        try uffd.expectNoMessage("mremap failed")
        // Looked for first: to read a page that is lost would take for ever.
        let lost = try pages.indices.filter {
            let entry = try PagemapEntry(of: pages[$0].start)
            return !entry.isPresent && !entry.isSwapped
        }
        try expect(lost.isEmpty, "all \(tables) pages are there when mremap has failed", seen: "lost: \(lost)")
        for (index, page) in pages.enumerated() {
            try Pattern.expect(seed: 0, page: index, at: page.start, count: size, "what did not move")
        }
        try expectEqual(MappingAccount(holding: memory.start).userfaultFlags, ["um"], "flags of what did not move")
        let missing = memory.part(at: size, count: size)
        let touch = try Touch.read(missing.start)
        try uffd.expectFault(at: missing.start, [])
        let source = try Mapping(anonymous: size)
        Touch.store(source.range.start, 9)
        try expectEqual(uffd.raw(.copy, missing, from: source), .done(size), "COPY after mremap failed")
        try touch.finish(with: 9)
        return true
    }
}
