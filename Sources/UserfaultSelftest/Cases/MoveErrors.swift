import CSelftestSupport
import CUserfaultFD
import SystemPackage
import UserfaultFD

/// What MOVE refuses, with which errno and which output word, and that nothing has moved then.
enum MoveErrorCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "move-errors", on: [.anon],
            "MOVE refuses wrong ranges and modes with EINVAL, a bad argument with EFAULT, and leaves its word alone",
            requires: [.features(.move)], covers: [.arguments, .moveErrors]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            let uffd = try destination.registered(.missing)
            let waiter = try Touch.read(destination.address(0))
            try uffd.expectFault(at: destination.address(0), [])
            try waiter.thread.waitAsleep()
            func expectRefused(_ what: String, _ answer: RawAnswer) throws {
                try expectEqual(answer, .refused(.invalidArgument), "MOVE with \(what)")
                for page in 0..<4 {
                    try expect(!PagemapEntry(of: destination.address(page)).isPresent, "nothing moved by \(what)")
                    try source.expectView(page, "source after \(what)")
                }
            }
            for violation in RangeViolation.all(around: destination.range) {
                try expectRefused(
                    "\(violation.name) of the destination",
                    uffd.raw(
                        .move, start: violation.start, count: Int(bitPattern: violation.count),
                        source: source.range.start))
            }
            for violation in RangeViolation.all(around: source.range) {
                try expectRefused(
                    "\(violation.name) of the source",
                    uffd.raw(
                        .move, start: destination.range.start, count: Int(bitPattern: violation.count),
                        source: violation.start))
            }
            for mode: UInt64 in [4, 5, 8, 1 << 63] {
                try expectRefused(
                    "mode \(mode)", uffd.raw(.move, destination.range, source: source.range.start, mode: mode))
            }
            for pointer in BadPointer.all() {
                try expectErrno(uffd.rawIoctl(CUFFD_IOC_MOVE, pointer), .badAddress, "an argument that cannot be read")
            }
            try waiter.thread.expectStillAsleep("MOVE was refused")
            try uffd.expectWaiters(pending: 0, total: 1)
            try uffd.move(from: source.range.start, to: destination.range)
            try waiter.finish(with: Pattern.byte(page: 0))
        },
        SelftestCase(
            "move-foreign", on: [.anon],
            "MOVE by a process that does not own the memory answers EINVAL",
            requires: [.features(.move)], covers: [.passedDescriptors, .moveErrors]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            let uffd = try destination.registered(.missing)
            // The same argument for a child, which shares the descriptor and not the memory, and for this process.
            let page = try Mapping(anonymous: PageSize.base.bytes, sharing: .shared)
            let argument = UnsafeMutablePointer<cuffd_move>(bitPattern: page.range.start)!
            argument.pointee = cuffd_move(
                dst: UInt64(destination.address(1)), src: UInt64(source.address(1)), len: UInt64(PageSize.base.bytes),
                mode: 0, move: RawAnswer.untouched)
            let descriptor = uffd.withUnsafeDescriptor { $0.rawValue }
            let child = try Child([.ioctl(descriptor, request: CUFFD_IOC_MOVE, argument: page.range.start)])
            try expectEqual(
                RawAnswer(errno: Int32(-(try child.finish()[0])), word: argument.pointee.move),
                .refused(.invalidArgument),
                "MOVE by another process")
            try expect(!PagemapEntry(of: destination.address(1)).isPresent, "nothing is moved")
            try source.expectView(1)
            // The child had a share in the page; a write makes it this process' own again.
            Pattern.write(seed: 0, page: 1, at: source.address(1), count: PageSize.base.bytes)
            try expectErrno(uffd.rawIoctl(CUFFD_IOC_MOVE, argument), nil, "MOVE by the process itself")
            try destination.expectView(1)
        },
        SelftestCase(
            "move-output-unwritable", on: [.anon],
            "MOVE that cannot write its output word answers EFAULT, has moved the page and wakes nobody",
            requires: [.features(.move)], covers: [.arguments, .moveErrors]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            let uffd = try destination.registered(.missing)
            let touch = try Touch.read(destination.address(1))
            try uffd.expectFault(at: destination.address(1), [])
            try touch.thread.waitAsleep()
            // The argument's last 8 bytes, which are only written to, lie in the second page.
            let pages = try Mapping(anonymous: 2 * PageSize.base.bytes)
            let argument = UnsafeMutablePointer<cuffd_move>(
                bitPattern: pages.page(1).start + 8 - UInt(MemoryLayout<cuffd_move>.size))!
            argument.pointee = cuffd_move(
                dst: UInt64(destination.address(1)), src: UInt64(source.address(1)), len: UInt64(PageSize.base.bytes),
                mode: 0, move: 0)
            try pages.protect(.read, pages.page(1))
            try expectErrno(uffd.rawIoctl(CUFFD_IOC_MOVE, argument), .badAddress, "MOVE that cannot write its word")
            try destination.expectView(1, "the page moved all the same")
            try touch.thread.expectStillAsleep("MOVE that could not answer wakes nobody")
            try uffd.wake(destination.page(1))
            try touch.finish(with: Pattern.byte(page: 1))
        },
        SelftestCase(
            "move-wrong-mapping", on: [.anon],
            "MOVE refuses mappings that differ, cannot be written, are not registered here or are left by the range",
            requires: [.lockedPages(16), .features(.move)], covers: [.rangeLimits, .foreignDescriptors, .moveErrors]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context, pages: 6)
            let plain = try Area(context)
            let uffd = try destination.registered(.missing)
            let second = try UserfaultFD()
            func expectRefused(
                _ what: String, _ errno: Errno, to: AddressRange? = nil, from: UInt? = nil, by other: Bool = false
            ) throws {
                let to = to ?? destination.pages(1..<3)
                let from = from ?? source.address(1)
                for mode: UInt64 in [0, 2] {
                    let answer =
                        other
                        ? second.raw(.move, to, source: from, mode: mode)
                        : uffd.raw(.move, to, source: from, mode: mode)
                    try expectEqual(answer, .failed(errno), "MOVE, \(what)")
                }
                for page in 0..<6 { try source.expectView(page, "source, \(what)") }
                try expect(
                    try PagemapEntry.entries(of: destination.range).allSatisfy { !$0.isPresent },
                    "nothing moved, \(what)")
            }
            try expectRefused("to memory not registered", .invalidArgument, to: plain.pages(0..<2))
            try expectRefused("by a descriptor that has not registered it", .invalidArgument, by: true)
            try second.register(plain.range, modes: .missing)
            try expectRefused("to memory of another descriptor", .invalidArgument, to: plain.pages(0..<2))

            // Beyond the ends of the mappings, and where there is none. The gaps beside an area are mapped PROT_NONE.
            let hole = try Area(context)
            try AddressSpace.unmap(hole.range)
            try expectRefused("from no memory", .noSuchFileOrDirectory, from: hole.range.start)
            try expectRefused("to no memory", .noSuchFileOrDirectory, to: hole.pages(0..<2))
            try expectRefused("out of the source's mapping", .invalidArgument, from: source.address(5))
            try expectRefused(
                "out of the destination's mapping", .invalidArgument,
                to: AddressRange(start: destination.address(5), count: 2 * PageSize.base.bytes))

            for protection in [MemoryProtection.read, .none] {
                try source.view.protect(protection)
                try expectEqual(
                    uffd.raw(.move, destination.pages(1..<3), source: source.address(1)), .failed(.invalidArgument),
                    "MOVE from memory that is \(protection)")
                try destination.view.protect(protection)
                try expectEqual(
                    uffd.raw(.move, destination.pages(1..<3), source: source.address(1)), .failed(.invalidArgument),
                    "MOVE where both are \(protection)")
                try source.view.protect(.readWrite)
                try expectRefused("to memory that is \(protection)", .invalidArgument)
                try destination.view.protect(.readWrite)
            }
            try expectErrno(-RawMemory.lock(source.range), nil, "mlock")
            try expectRefused("from locked memory", .invalidArgument)
            try expectErrno(-RawMemory.unlock(source.range), nil, "munlock")

            // Across two mappings of the source that differ in nothing that matters.
            try source.view.advise(.dontFork, source.pages(2..<4))
            try expectRefused("out of a part of the source", .invalidArgument)
            try uffd.move(from: source.address(2), to: destination.pages(2..<4))
            try expectPatterns(2..<4, at: destination.address(2), "pages moved in the end")
            try uffd.expectNoMessage("nobody has touched anything missing")
        },
        SelftestCase(
            "move-wrong-memory", on: .pageCache,
            "MOVE takes neither from nor to memory that a file is behind",
            requires: [.features(.move), .missingFaults], covers: [.moveErrors]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .missing)
            let page = Area.hugePageBytes
            let anonymous = try Mapping(anonymous: 4 * page)
            let aligned = (anonymous.range.start + UInt(page) - 1) & ~UInt(page - 1)
            let memory = AddressRange(start: aligned, count: 2 * page)
            Pattern.write(seed: 1, page: 0, at: memory.start, count: area.pageSize.bytes)
            try uffd.register(memory, modes: .missing)
            let count = area.pageSize.bytes
            for mode: UInt64 in [0, 2] {
                try expectEqual(
                    uffd.raw(
                        .move, AddressRange(start: memory.start + UInt(page), count: count), source: area.address(1),
                        mode: mode), .failed(.invalidArgument), "MOVE from \(context.memory)")
                try expectEqual(
                    uffd.raw(.move, area.page(1), source: memory.start, mode: mode), .failed(.invalidArgument),
                    "MOVE to \(context.memory)")
            }
            try area.zapView(area.page(1))
            try expectEqual(
                uffd.raw(.move, area.page(1), source: memory.start), .failed(.invalidArgument),
                "MOVE to an unmapped page")
            try area.expectView(0)
            try area.expectView(2)
            try Pattern.expect(seed: 1, page: 0, at: memory.start, count: count, "the anonymous memory")
            try expect(!PagemapEntry(of: memory.start + UInt(page)).isPresent, "nothing is moved")
        },
        SelftestCase(
            "move-guard", on: [.anon],
            "a guard page ends MOVE: EFAULT in the source, EEXIST at the destination",
            requires: [.features(.move)], covers: [.moveErrors, .guardRegions]
        ) { context in
            let (source, destination) = try Area.sourceAndDestination(context)
            try source.guardPage(1, lack: "this kernel has no guard pages")
            let uffd = try destination.registered(.missing)
            try expectEqual(
                uffd.raw(.move, destination.pages(0..<3), source: source.address(0)), .partial(PageSize.base.bytes),
                "MOVE up to a guard page")
            for mode: UInt64 in [0, 2] {
                try expectEqual(
                    uffd.raw(.move, destination.page(1), source: source.address(1), mode: mode), .failed(.badAddress),
                    "MOVE of a guard page")
            }
            guard case .signal(let fault) = Touch.load(source.address(1)), fault.signal == 11 else {
                throw CaseFailure(expected: "SIGSEGV of the guard page", seen: "something else")
            }
            try destination.view.advise(.guardInstall, destination.page(2))
            try expectEqual(
                uffd.raw(.move, destination.page(2), source: source.address(2)), .failed(.fileExists),
                "MOVE onto a guard page")
            try source.expectView(2)
            guard case .signal = Touch.load(destination.address(2)) else {
                throw CaseFailure(expected: "SIGSEGV of the guard page", seen: "it can be read")
            }
        },
        SelftestCase(
            "move-merged", on: [.anon],
            "a page merged with an equal one cannot be moved: EBUSY",
            requires: [
                // Without pauses: where virtual machines run, there are gigabytes of their memory to look at first.
                .features(.move), .setting(.sharedPageMerging, "1"), .setting(.sharedPageMergingPause, "0"),
            ], limit: .seconds(30), covers: [.moveErrors]
        ) { context in
            let (source, destination) = try (Area(context, pages: 2), Area(context, pages: 2))
            for page in 0..<2 { Pattern.write(seed: 6, page: 0, at: source.address(page), count: PageSize.base.bytes) }
            try source.view.advise(.mergeable)
            let uffd = try destination.registered(.missing)
            do {
                // The thread of the kernel that merges has a low priority.
                try Waiting.until("the pages are merged", within: Waiting.ordinary * 4) {
                    try (0..<2).allSatisfy { try !PagemapEntry(of: source.address($0)).isExclusive }
                }
            } catch is CaseFailure {
                try context.skip(thisTime: "KSM did not merge the pages")
            }
            try expectEqual(
                uffd.raw(.move, destination.page(0), source: source.address(0)), .failed(.resourceBusy),
                "MOVE of a merged page")
            try expect(!PagemapEntry(of: destination.address(0)).isPresent, "nothing is moved")
            try Pattern.expect(seed: 6, page: 0, at: source.address(0), count: PageSize.base.bytes, "the merged page")
            // A write makes the page its owner's again.
            Pattern.write(seed: 7, page: 0, at: source.address(0), count: PageSize.base.bytes)
            try uffd.move(from: source.address(0), to: destination.page(0))
            try Pattern.expect(
                seed: 7, page: 0, at: destination.address(0), count: PageSize.base.bytes, "the moved page")
        },
    ]
}
