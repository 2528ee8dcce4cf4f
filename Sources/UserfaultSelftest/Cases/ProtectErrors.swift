import SystemPackage
import UserfaultFD

/// What WRITEPROTECT and RWPROTECT refuse, with which errno, and that nothing changes then; and ranges of many mappings.
enum ProtectErrorCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-errors", on: .all,
            "WRITEPROTECT refuses wrong ranges, modes and memory with the right errno, and changes nothing",
            requires: [.writeProtectFaults], covers: [.arguments, .protectErrors]
        ) { try errors($0, .writeProtect) },
        SelftestCase(
            "rwp-errors", on: .all,
            "RWPROTECT refuses wrong ranges, modes and memory with the right errno, and changes nothing",
            requires: [.features(.readWriteProtect)], covers: [.arguments, .readWriteProtect]
        ) { try errors($0, .readWriteProtect) },
        // Linux 6.4 brought ranges of many mappings together with this feature.
        SelftestCase(
            "wp-many-mappings", on: .all,
            "WRITEPROTECT reaches every registered mapping of its range and passes over gaps",
            requires: [.writeProtectFaults, .features(.writeProtectUnpopulated)], covers: [.protectErrors]
        ) { try manyMappings($0, .writeProtect) },
        SelftestCase(
            "rwp-many-mappings", on: .all,
            "RWPROTECT reaches every registered mapping of its range and passes over gaps",
            requires: [.features(.readWriteProtect)], covers: [.readWriteProtect]
        ) { try manyMappings($0, .readWriteProtect) },
        SelftestCase(
            "wp-mixed-mappings", on: .all,
            "WRITEPROTECT stops with ENOENT at a mapping that is not registered for it; those before keep the change",
            requires: [.writeProtectFaults, .features(.writeProtectUnpopulated)], covers: [.protectErrors]
        ) { context in
            let area = try Area(context, pages: 5)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.pages(0..<2), modes: .writeProtect)
            try uffd.register(area.pages(3..<5), modes: .writeProtect)
            try expectErrno(uffd.raw(.writeProtect, area.range, mode: 1), .noSuchFileOrDirectory, "WRITEPROTECT")
            try area.expectProtected([0, 1], "up to the mapping that is not registered")
            try uffd.writeProtect(area.pages(3..<5), .protect)
            let touch = try Touch.write(area.address(3), 1)
            try uffd.expectFault(at: area.address(3), [.write, .writeProtect])
            try touch.thread.waitAsleep()
            try expectErrno(uffd.raw(.writeProtect, area.range, mode: 0), .noSuchFileOrDirectory, "unprotecting")
            try area.expectProtected([3, 4], "after unprotecting up to that mapping")
            try expectErrno(
                uffd.raw(.writeProtect, area.pages(2..<5), mode: 0), .noSuchFileOrDirectory, "unprotecting from there")
            try area.expectProtected([3, 4], "where the first mapping is not registered")
            try touch.expectStillWaiting(uffd, "a call that is refused wakes nobody")
            try uffd.writeProtect(area.pages(3..<5), .unprotect)
            try touch.finish(with: 1)
        },
        SelftestCase(
            "rwp-mixed-mappings", on: .all,
            "RWPROTECT looks at all mappings first: where one is not registered for it, ENOENT, and nothing changes",
            requires: [.features(.readWriteProtect)], covers: [.readWriteProtect]
        ) { context in
            let area = try Area(context, pages: 5)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            area.fillView()
            try uffd.register(area.pages(0..<2), modes: .readWriteProtect)
            try uffd.register(area.pages(3..<5), modes: .readWriteProtect)
            for part in [area.range, area.pages(0..<3), area.pages(2..<4)] {
                try expectErrno(uffd.raw(.readWriteProtect, part, mode: 1), .noSuchFileOrDirectory, "RWPROTECT")
                try area.expectProtected([], "after RWPROTECT was refused")
            }
            try uffd.rwProtect(area.pages(0..<2), .protect)
            try uffd.rwProtect(area.pages(3..<5), .protect)
            let touch = try Touch.read(area.address(3))
            try uffd.expectFault(at: area.address(3), .readWriteProtect)
            try touch.thread.waitAsleep()
            try expectErrno(uffd.raw(.readWriteProtect, area.range, mode: 0), .noSuchFileOrDirectory, "unprotecting")
            try area.expectProtected([0, 1, 3, 4], "after unprotecting was refused")
            try uffd.register(area.page(2), modes: .missing)
            try expectErrno(
                uffd.raw(.readWriteProtect, area.range, mode: 0), .noSuchFileOrDirectory,
                "unprotecting over a mapping registered for missing faults")
            try area.expectProtected([0, 1, 3, 4], "after unprotecting was refused")
            try touch.expectStillWaiting(uffd, "a call that is refused wakes nobody")
            try uffd.rwProtect(area.pages(3..<5), .unprotect)
            try touch.finish(with: Pattern.byte(page: 3))
        },
    ]

    private static func descriptor(_ call: ProtectCall) throws -> UserfaultFD {
        try UserfaultFD(features: call == .writeProtect ? [] : .readWriteProtect)
    }

    private static func modes(_ call: ProtectCall) -> UserfaultFD.RegisterModes {
        call == .writeProtect ? .writeProtect : .readWriteProtect
    }

    private static func errors(_ context: CaseContext, _ call: ProtectCall) throws {
        let area = try Area(context)
        let other = try Area(context)
        let uffd = try descriptor(call)
        area.fillView()
        other.fillView()
        try uffd.register(area.range, modes: modes(call))
        try expectErrno(uffd.raw(call, area.page(1), mode: 1), nil, "protecting page 1")
        func expectRefused(
            _ what: String, _ errno: Errno, start: UInt, count: UInt, modes: [UInt64] = [0, 1, 2]
        ) throws {
            for mode in modes {
                try expectErrno(
                    uffd.raw(call, start: start, count: Int(bitPattern: count), mode: mode), errno,
                    "mode \(mode), \(what)")
                try area.expectProtected([1], "after \(what), mode \(mode)")
            }
        }
        let whole = UInt(area.range.count)
        for violation in RangeViolation.all(around: area.range) {
            try expectRefused(violation.name, .invalidArgument, start: violation.start, count: violation.count)
        }
        try expectRefused(
            "an unknown mode", .invalidArgument, start: area.range.start, count: whole, modes: [3, 4, 5, 8, 1 << 63])
        if area.memory.isHugetlb {
            let (base, huge) = (UInt(PageSize.base.bytes), UInt(area.pageSize.bytes))
            try expectRefused(
                "a start within a huge page", .invalidArgument, start: area.address(1) + base, count: huge)
            try expectRefused("a length within a huge page", .invalidArgument, start: area.address(0), count: base)
            try expectRefused("an end within a huge page", .invalidArgument, start: area.address(0), count: huge + base)
        }
        for pointer in BadPointer.all() {
            try expectErrno(uffd.rawIoctl(call.request, pointer), .badAddress, "an argument that cannot be read")
        }
        // Memory that is registered otherwise, not at all, not any more, and no memory.
        let page = UInt(area.pageSize.bytes)
        try uffd.register(other.page(0), modes: .missing)
        try expectRefused("memory registered as missing", .noSuchFileOrDirectory, start: other.address(0), count: page)
        try expectRefused("memory not registered", .noSuchFileOrDirectory, start: other.address(2), count: page)
        try uffd.register(other.page(3), modes: modes(call))
        try uffd.unregister(other.page(3))
        try expectRefused("memory unregistered", .noSuchFileOrDirectory, start: other.address(3), count: page)
        try AddressSpace.unmap(other.page(2))
        try expectRefused("no memory", .noSuchFileOrDirectory, start: other.address(2), count: page)
        for index in [0, 1, 3] { try other.expectView(index) }
        try other.expectProtected([], "after all was refused")

        // Another descriptor of this process may do it: only the mode of the memory is looked at.
        let second = try descriptor(call)
        try expectErrno(second.raw(call, area.page(2), mode: 1), nil, "protecting by another descriptor")
        try area.expectProtected([1, 2], "after protecting by another descriptor")
        try expectErrno(second.raw(call, area.range, mode: 0), nil, "unprotecting by another descriptor")
        try area.expectProtected([], "after unprotecting by another descriptor")
    }

    private static func manyMappings(_ context: CaseContext, _ call: ProtectCall) throws {
        let area = try Area(context, pages: 7)
        let uffd = try descriptor(call)
        area.fillView()
        try uffd.register(area.range, modes: modes(call))
        // Threads that start before there is a gap have their stacks elsewhere.
        let gate = Touch.Gate()
        let touches = try [1, 5].map { try Touch.write(area.address($0), 0xEE, after: gate) }
        // Pages 0-1 | 2 read-only | 3 | gap 4 | 5-6
        try area.view.protect(.read, area.page(2))
        try AddressSpace.unmap(area.page(4))
        try expectEqual(mappings(in: area.range).filter { !$0.isEmpty }.count >= 4, true, "the area is in pieces")
        try expectErrno(uffd.raw(call, area.pages(1..<6), mode: 1), nil, "protecting over pieces and a gap")
        try area.expectProtected([1, 2, 3, 5], "after protecting pages 1 to 5")
        try expectErrno(uffd.raw(call, area.pages(2..<6), mode: 0), nil, "unprotecting over pieces and a gap")
        try area.expectProtected([1], "after unprotecting pages 2 to 5")
        try expectErrno(uffd.raw(call, area.pages(4..<7), mode: 1), nil, "protecting from the gap on")
        try area.expectProtected([1, 5, 6], "after protecting from the gap on")
        try expectErrno(uffd.raw(call, area.pages(3..<5), mode: 1), nil, "protecting into the gap")
        try area.expectProtected([1, 3, 5, 6], "after protecting into the gap")
        try expectErrno(uffd.raw(call, area.page(4), mode: 1), .noSuchFileOrDirectory, "protecting the gap alone")

        // One call lets waiters of several mappings go.
        gate.open()
        let faults = try (0..<2).map { _ in
            guard case .pagefault(let fault) = try uffd.expectMessage("a write to a protected page") else {
                throw CaseFailure(expected: "a page fault", seen: "another event")
            }
            return fault
        }
        try expectEqual(Set(faults.map(\.address)), [area.address(1), area.address(5)], "pages of the messages")
        for fault in faults {
            let kind: PageFault.Flags = call == .writeProtect ? .writeProtect : .readWriteProtect
            try expectEqual(fault.flags, [.write, kind], "flags of the fault")
        }
        try expectErrno(uffd.raw(call, area.range, mode: 0), nil, "unprotecting all")
        for touch in touches { try touch.finish(with: 0xEE) }
        try area.expectProtected([], "at the end")
        for page in [0, 2, 3, 6] { try area.expectView(page) }
    }
}
