import Glibc
import SystemPackage
import UserfaultFD

/// The REMOVE event: madvise that drops pages tells the monitor first, and waits for it.
enum EventRemoveCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "event-remove", on: .all,
            "MADV_DONTNEED reports its range before it drops a page, waits until that is read, and drops only then",
            requires: [.missingFaults, .features(.eventRemove)], covers: [.removeEvent]
        ) { context in
            try removes(context, .dontNeed)
        },
        SelftestCase(
            "event-remove-file", on: [.shmem, .tmpfs, .hugetlb],
            "MADV_REMOVE reports its range before it drops a page, waits until that is read, and drops only then",
            requires: [.missingFaults, .features(.eventRemove)], covers: [.removeEvent]
        ) { context in
            try removes(context, .remove)
        },
        SelftestCase(
            "event-remove-free", on: [.anon],
            "MADV_FREE reports its range and waits until that is read",
            requires: [.features(.eventRemove)], covers: [.removeEvent]
        ) { context in
            let area = try Area(context, pages: 4)
            let uffd = try UserfaultFD(features: .eventRemove)
            try area.registerFilled(uffd)
            let call = try BackgroundCall { try area.view.advise(.free, area.pages(1..<3)) }
            try call.waitBlocked(on: uffd)
            try uffd.expectRemove(area.pages(1..<3))
            try call.finish()
            try uffd.expectNoMessage("one madvise makes one event")
        },
        SelftestCase(
            "event-remove-locked", on: [.anon, .shmem],
            "MADV_DONTNEED of locked memory is EINVAL and no event; DONTNEED_LOCKED reports its range and waits",
            requires: [.lockedPages(4), .missingFaults, .features(.eventRemove)],
            covers: [.removeEvent, .specialMappings]
        ) { context in
            let area = try Area(context, pages: 4)
            let uffd = try UserfaultFD(features: .eventRemove)
            try area.registerFilled(uffd)
            try expectEqual(RawMemory.lock(area.range), 0, "answer of mlock")
            let refused = try expectThrows(UserfaultError.self, "MADV_DONTNEED of locked memory is refused") {
                () throws(UserfaultError) in try area.view.advise(.dontNeed, area.page(1))
            }
            try expectEqual(refused.errno, .invalidArgument, "errno of MADV_DONTNEED")
            try uffd.expectNoMessage("nothing was dropped")
            let call = try BackgroundCall { () -> Errno? in
                do throws(UserfaultError) { try area.view.advise(.dontNeedLocked, area.page(1)) } catch {
                    return error.errno
                }
                return nil
            }
            try call.waitEvent(of: uffd)
            if call.isFinished, try call.finish() == .invalidArgument {
                try context.skip(kernel: "the kernel has no MADV_DONTNEED_LOCKED (Linux 5.18)")
            }
            try uffd.expectRemove(area.page(1))
            try expectEqual(try call.finish(), nil, "errno of MADV_DONTNEED_LOCKED")
        },
        SelftestCase(
            "event-remove-each-mapping", on: [.anon, .shmem, .tmpfsPrivate],
            "one madvise over two registered mappings makes two events, each of its part, one after the other",
            requires: [.missingFaults, .features(.eventRemove)], covers: [.removeEvent]
        ) { context in
            let area = try Area(context, pages: 6)
            let uffd = try UserfaultFD(features: .eventRemove)
            try area.registerFilled(uffd)
            try area.view.protect(.read, area.pages(3..<6))
            let call = try BackgroundCall { try area.view.advise(.dontNeed, area.pages(1..<5)) }
            try call.waitBlocked(on: uffd)
            try uffd.expectRemove(area.pages(1..<3))
            try call.waitBlocked(on: uffd)
            try uffd.expectRemove(area.pages(3..<5))
            try call.finish()
            try uffd.expectNoMessage("two mappings make two events")
        },
        SelftestCase(
            "event-remove-registered-part", on: [.anon, .shmem],
            "madvise over registered and other memory reports the registered part only",
            requires: [.missingFaults, .features(.eventRemove)], covers: [.removeEvent]
        ) { context in
            let area = try Area(context, pages: 6)
            let uffd = try UserfaultFD(features: .eventRemove)
            try uffd.register(area.pages(2..<4), modes: .missing)
            let call = try BackgroundCall { try area.zapView() }
            try call.waitBlocked(on: uffd)
            try uffd.expectRemove(area.pages(2..<4))
            try call.finish()
            try uffd.expectNoMessage("the rest is not registered")
        },
        SelftestCase(
            "event-remove-silent", on: [.shmem, .tmpfs],
            "mprotect, MADV_PAGEOUT, punching a hole and truncating make no event",
            requires: [.missingFaults, .features(.eventRemove)], covers: [.removeEvent]
        ) { context in
            let area = try Area(context, pages: 4)
            let uffd = try UserfaultFD(features: .eventRemove)
            try area.registerFilled(uffd)
            // On a thread of their own: a kernel that raised an event would block them.
            let calls = try BackgroundCall {
                try area.view.protect(.read)
                try area.view.protect(.readWrite)
                try? area.view.advise(.pageOut)
                try area.file?.punchHole(at: 0, count: area.pageSize.bytes)
                try area.file?.resize(to: 3 * area.pageSize.bytes)
            }
            try calls.finish("none of them waits for the monitor")
            try uffd.expectNoMessage("none of them raises an event")
        },
        SelftestCase(
            "event-remove-guard", on: [.anon],
            "guard regions make no event",
            requires: [.features(.eventRemove)], covers: [.removeEvent, .guardRegions]
        ) { context in
            let area = try Area(context, pages: 4)
            let uffd = try UserfaultFD(features: .eventRemove)
            try area.registerFilled(uffd)
            let calls = try BackgroundCall { () -> Errno? in
                do throws(UserfaultError) {
                    try area.view.advise(.guardInstall, area.page(1))
                    try area.view.advise(.guardRemove, area.page(1))
                } catch { return error.errno }
                return nil
            }
            let errno = try calls.finish("guarding does not wait for the monitor")
            try uffd.expectNoMessage("guarding raises no event")
            if errno == .invalidArgument { try context.skip(kernel: "the kernel has no guard regions (Linux 6.13)") }
            try expectEqual(errno, nil, "errno of MADV_GUARD_INSTALL")
        },
        SelftestCase(
            "event-remove-unmapped", on: [.anon, .shmem, .shmemPrivate],
            "madvise whose memory is unmapped while it waits for its event answers ENOMEM, and drops what is left",
            requires: [.missingFaults, .features(.eventRemove)], covers: [.removeEvent]
        ) { context in
            for (unmapped, right) in [(1..<4, [-ENOMEM]), (2..<4, [-ENOMEM, 0])] {
                let area = try Area(context, pages: 6)
                let uffd = try UserfaultFD(features: .eventRemove)
                try area.registerFilled(uffd)
                let range = area.pages(1..<4)
                let call = try BackgroundCall {
                    RawMemory.advise(range, .dontNeed)
                }
                try call.waitBlocked(on: uffd)
                try AddressSpace.unmap(area.pages(unmapped))
                try uffd.expectRemove(range)
                try expectOne(of: right, call.finish(), "answer of madvise when pages \(unmapped) were unmapped")
                try area.expectUnmapped(1..<unmapped.lowerBound, "it was dropped")
                for page in [0, 4, 5] { try area.expectView(page) }
            }
        },
        SelftestCase(
            "event-remove-not-enabled", on: .smallPages,
            "without the feature madvise does not wait, and makes no message",
            requires: [.missingFaults], covers: [.removeEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing)
            let call = try BackgroundCall { try area.zapView() }
            try call.finish("madvise does not wait")
            try uffd.expectNoMessage("the event was not asked for")
        },
        SelftestCase(
            "event-remove-close", on: [.anon, .shmem],
            "closing the userfaultfd releases a madvise that waits for its event to be read",
            requires: [.missingFaults, .features(.eventRemove)], covers: [.removeEvent, .passedDescriptors]
        ) { context in
            let area = try Area(context, pages: 4)
            let uffd = try UserfaultFD(features: .eventRemove)
            try area.registerFilled(uffd)
            let call = try BackgroundCall { try area.zapView() }
            try call.waitBlocked(on: uffd)
            try uffd.close()
            try call.finish("madvise goes on when nobody can read its event any more")
        },
    ]

    /// Advice that drops pages 1 and 2 of 4: the event comes first, and the neighbours stay.
    private static func removes(_ context: CaseContext, _ advice: Advice) throws {
        let area = try Area(context)
        let uffd = try UserfaultFD(features: .eventRemove)
        try area.registerFilled(uffd)
        let call = try BackgroundCall { () -> Errno? in
            do throws(UserfaultError) { try area.view.advise(advice, area.pages(1..<3)) } catch { return error.errno }
            return nil
        }
        try call.waitEvent(of: uffd)
        if call.isFinished, area.memory.isHugetlb, try call.finish() == .invalidArgument {
            try context.skip(kernel: "the kernel does not drop pages of hugetlbfs so (Linux 5.18)")
        }
        try call.waitBlocked(on: uffd)
        for page in 0..<4 { try area.expectView(page, "contents before the event is read") }
        try uffd.expectRemove(area.pages(1..<3))
        try expectEqual(try call.finish(), nil, "errno of madvise")
        try uffd.expectNoMessage("one madvise makes one event")

        for page in 1..<3 {
            let entry = try PagemapEntry(of: area.address(page))
            try expect(!entry.isPresent, "page \(page) is dropped", seen: "\(entry)")
        }
        try area.expectView(0, "the page before the dropped ones")
        try area.expectView(3, "the page behind the dropped ones")
        // What the advice leaves in the file is mapped again without a message; the rest is missing again.
        let isInFile = advice == .dontNeed && !area.memory.isPrivate
        let touch = try Touch.read(area.address(1))
        if !isInFile {
            try uffd.expectFault(at: area.address(1), [])
            try uffd.copy(from: area.source(1..<2, seed: 9), to: area.page(1))
        }
        try touch.finish()
        try area.expectView(1, seed: isInFile ? 0 : 9, "contents after the drop")
    }
}
