import Glibc
import SystemPackage
import UserfaultFD

/// The FORK event: a child's registrations get a descriptor of their own.
enum EventForkCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "event-fork", on: .all,
            "fork waits until its event is read; the child's faults come to the new descriptor, and to no other",
            requires: [.root, .missingFaults, .features(.eventFork)], covers: [.forkEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing, features: [.eventFork, .threadID])
            try uffd.copy(from: area.source(0..<1), to: area.page(0))
            let fork = try BackgroundCall {
                try Child([.load(area.address(0)), .load(area.address(1)), .load(area.address(2)), .pause])
            }
            try fork.waitBlocked(on: uffd)
            let childUffd = try uffd.expectFork()
            let child = try fork.finish("fork returns once its event is read")
            try uffd.expectNoMessage("one fork makes one event")

            try childUffd.expectFault(at: area.address(1), [], thread: child.processID)
            try uffd.expectNoMessage("the fault is the child's")
            try expectEqual(
                childUffd.copy(from: area.source(1..<2), to: area.page(1)), area.pageSize.bytes, "bytes copied")
            try childUffd.expectFault(at: area.address(2), [], thread: child.processID)
            try childUffd.copy(from: area.source(2..<3), to: area.page(2))
            try child.waitPaused()
            for page in 0..<3 {
                let first = Int64(Pattern.byte(page: page))
                try expectEqual(child.result(page), first, "byte that the child read of page \(page)")
            }
            try expectParentUntouched(area, uffd, page: 1)
            try child.resume()
            try child.finish()
        },
        SelftestCase(
            "event-fork-user-mode", on: [.anon],
            "the descriptor of a forked child handles user code's faults only, if its parent's does",
            requires: [.missingFaults, .features(.eventFork), .root], covers: [.forkEvent, .kernelFaults]
        ) { context in
            // A filter that refuses the call leaves no fault to wait for.
            guard KernelAccess.processRead.isPossible else {
                try context.skip("\(KernelAccess.processRead.rawValue) is filtered: allow it in the seccomp profile")
            }
            let area = try Area(context)
            for isRestricted in [false, true] {
                let uffd = try UserfaultFD(
                    features: .eventFork, options: .init(faults: isRestricted ? .userMode : .userAndKernelMode))
                if isRestricted, uffd.handlesKernelFaults {
                    try context.skip(kernel: "this kernel cannot leave faults of the kernel out")
                }
                let descriptor = Handler.Descriptor(uffd)
                try descriptor.uffd.register(area.range, modes: .missing)
                let child = try Child.reported(by: descriptor, [.pause])
                try child.waitPaused()
                let inherited = child.descriptor!
                let reader = try BackgroundCall {
                    KernelAccess.processRead.perform(area.address(1), count: 8, process: child.processID)
                }
                if isRestricted {
                    try expectEqual(
                        try reader.finish().answer, -Int(Errno.badAddress.rawValue),
                        "answer of reading a missing page of the child through the kernel")
                } else {
                    try inherited.uffd.expectFault(at: area.address(1), [])
                    try inherited.uffd.zeropage(area.page(1))
                    try expectEqual(try reader.finish().answer, 8, "bytes that the kernel has read of the child")
                }
                try inherited.uffd.expectNoMessage("nothing else was touched")
                try child.resume()
                try child.finish()
                try descriptor.uffd.unregister(area.range)
            }
        },
        SelftestCase(
            "event-fork-descriptor", on: [.anon],
            "the child's descriptor has the parent's flags and features, and is initialised already",
            requires: [.root, .features([.eventFork, .eventRemove, .threadID])], covers: [.forkEvent]
        ) { context in
            let area = try Area(context)
            for closeOnExec in [true, false] {
                let uffd = try UserfaultFD(
                    features: [.eventFork, .threadID], options: .init(closeOnExec: closeOnExec))
                try uffd.register(area.range, modes: .missing)
                let fork = try BackgroundCall { try Child([.pause]) }
                var childUffd = try uffd.expectFork()
                let child = try fork.finish()
                try expectEqual(try childUffd.status(), try uffd.status(), "fdinfo of the child's descriptor")
                let (status, flags) = childUffd.withUnsafeDescriptor {
                    (fcntl($0.rawValue, F_GETFL), fcntl($0.rawValue, F_GETFD))
                }
                try expectEqual(status & O_NONBLOCK, O_NONBLOCK, "O_NONBLOCK of the child's descriptor")
                try expectEqual(flags & FD_CLOEXEC != 0, closeOnExec, "O_CLOEXEC of the child's descriptor")
                var errno: Errno?
                do throws(UserfaultError) { try childUffd.negotiate() } catch { errno = error.errno }
                try expectEqual(errno, .invalidArgument, "errno of UFFDIO_API on the child's descriptor")
                try child.resume()
                try child.finish()
                try uffd.unregister(area.range)
            }
        },
        SelftestCase(
            "event-fork-not-copied", on: [.anon, .shmem],
            "a fork that copies no registered memory makes no event",
            requires: [.root, .missingFaults, .features(.eventFork)], covers: [.forkEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .eventFork)
            let unregistered = try BackgroundCall { try Child([.load(area.address(0))]).finish() }
            try expectEqual(try unregistered.finish("fork does not wait"), [0], "byte that the child read")
            try uffd.expectNoMessage("nothing is registered")
            try uffd.register(area.range, modes: .missing)
            try area.view.advise(.dontFork)
            let excluded = try BackgroundCall { try Child([.load(area.address(0))]).finish() }
            try expectEqual(
                try excluded.finish("fork does not wait"), [-Int64(SIGSEGV)],
                "signal in the child, which has no mapping")
            try uffd.expectNoMessage("the registered memory is not copied")
        },
        SelftestCase(
            "event-fork-several-mappings", on: [.anon, .shmem],
            "a fork that copies several registered mappings makes one event, and one descriptor for all of them",
            requires: [.root, .missingFaults, .features(.eventFork)], covers: [.forkEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing, features: .eventFork)
            try area.view.protect(.read, area.page(1))
            let fork = try BackgroundCall { try Child([0, 1, 3].map { .load(area.address($0)) }) }
            try fork.waitBlocked(on: uffd)
            let childUffd = try uffd.expectFork()
            let child = try fork.finish("fork waits for one event only")
            for page in [0, 1, 3] {
                try childUffd.expectFault(at: area.address(page), [])
                try childUffd.raw(.zeropage, area.page(page)).expectDone(area.pageSize.bytes)
            }
            try expectEqual(child.finish(), [0, 0, 0], "what the child read")
            try uffd.expectNoMessage("one fork makes one event")
        },
        SelftestCase(
            "event-fork-wiped", on: [.anon],
            "memory that a fork empties is registered in the child: its pages are missing there, and not here",
            requires: [.root, .missingFaults, .features(.eventFork)], covers: [.forkEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .eventFork)
            try area.registerFilled(uffd)
            try area.view.advise(Advice(rawValue: 18))  // MADV_WIPEONFORK
            let fork = try BackgroundCall { try Child([.load(area.address(1)), .load(area.address(2))]) }
            try fork.waitBlocked(on: uffd)
            let childUffd = try uffd.expectFork()
            let child = try fork.finish()
            try childUffd.expectFault(at: area.address(1), [])
            try childUffd.raw(.zeropage, area.page(1)).expectDone(area.pageSize.bytes)
            try childUffd.expectFault(at: area.address(2), [])
            try childUffd.raw(.copy, area.page(2), from: area.source(3..<4)).expectDone(area.pageSize.bytes)
            try expectEqual(child.finish(), [0, Int64(Pattern.byte(page: 3))], "what the child read")
            for page in 0..<4 { try area.expectView(page) }
            try uffd.expectNoMessage("the parent's pages are there")
        },
        SelftestCase(
            "event-fork-not-enabled", on: .smallPages,
            "without the feature a child's memory is not registered: its touches are ordinary faults",
            requires: [.missingFaults], covers: [.forkEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing)
            let fork = try BackgroundCall { try Child([.load(area.address(1)), .store(area.address(2), 5)]).finish() }
            try expectEqual(
                try fork.finish("neither fork nor the child waits"), [0, 0], "results of the child's touches")
            try uffd.expectNoMessage("the child is not registered")
            let touch = try Touch.read(area.address(3))
            try uffd.expectFault(at: area.address(3), [])
            try uffd.zeropage(area.page(3))
            try touch.finish(with: 0)
        },
        SelftestCase(
            "event-fork-each-context", on: [.anon, .shmem],
            "two userfaultfds of one process get an event each from one fork",
            requires: [.root, .missingFaults, .features(.eventFork)], covers: [.forkEvent]
        ) { context in
            let first = try Area(context)
            let second = try Area(context)
            let contexts = try [first, second].map { area in
                let context = Handler.Descriptor(try UserfaultFD(features: .eventFork))
                try context.uffd.register(area.range, modes: .missing)
                return context
            }
            let fork = try BackgroundCall { try Child([.load(first.address(0)), .load(second.address(0))]) }
            // One after the other, in either order: the second event is raised when the first is read.
            var early = 0
            try Waiting.until("a fork event") {
                early = try contexts[0].uffd.poll(timeout: .zero) ? 0 : 1
                return try contexts[early].uffd.poll(timeout: .zero)
            }
            var children = [Handler.Descriptor(try contexts[early].uffd.expectFork())]
            try fork.waitBlocked(on: contexts[1 - early].uffd)
            children.insert(Handler.Descriptor(try contexts[1 - early].uffd.expectFork()), at: early == 0 ? 1 : 0)
            let child = try fork.finish()
            try children[0].uffd.expectFault(at: first.address(0), [])
            try children[1].uffd.expectNoMessage("the fault is in the other's memory")
            try children[0].uffd.zeropage(first.page(0))
            try children[1].uffd.expectFault(at: second.address(0), [])
            try children[1].uffd.zeropage(second.page(0))
            try expectEqual(try child.finish(), [0, 0], "bytes that the child read")
        },
        SelftestCase(
            "event-fork-no-descriptor", on: [.anon],
            "where no descriptor is free the read is EMFILE, and the event stays to be read later",
            requires: [.root, .features(.eventFork)], covers: [.forkEvent, .exhaustion]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing, features: .eventFork)
            let fork = try BackgroundCall { try Child([.load(area.address(0))]) }
            try fork.waitBlocked(on: uffd)
            var before = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &before)
            var none = rlimit(rlim_cur: 0, rlim_max: before.rlim_max)
            var batch = EventBatch(capacity: 1)
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &none)
            var errno: Errno?
            do throws(UserfaultError) { try uffd.read(into: &batch) } catch { errno = error.errno }
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &before)
            try expectEqual(errno, .tooManyOpenFiles, "errno of a read without a free descriptor")
            try fork.waitBlocked(on: uffd)
            let childUffd = try uffd.expectFork()
            let child = try fork.finish()
            try childUffd.expectFault(at: area.address(0), [])
            try childUffd.zeropage(area.page(0))
            try child.finish()
        },
        SelftestCase(
            "event-fork-close", on: [.anon, .shmem],
            "closing the last descriptor releases a fork that waits; its child's memory is not registered",
            requires: [.root, .missingFaults, .features(.eventFork)], covers: [.forkEvent, .passedDescriptors]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing, features: .eventFork)
            // A child with descriptors of its own has this one too, from before its memory is copied.
            let fork = try BackgroundCall { try Child([.load(area.address(1))], sharesDescriptors: true) }
            try fork.waitBlocked(on: uffd)
            try uffd.close()
            let child = try fork.finish("fork returns when nobody can read its event any more")
            try expectEqual(try child.finish(), [0], "byte that the child read")
        },
        SelftestCase(
            "event-fork-child-killed", on: [.anon],
            "a child that waits for a page, or in an event of its own, can be killed; its descriptor answers ESRCH then",
            requires: [.root, .features([.eventFork, .eventRemove])], covers: [.forkEvent, .endedProcess]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing, features: [.eventFork, .eventRemove])
            for step in [Child.Step.load(area.address(1)), .advise(area.range, .dontNeed)] {
                let fork = try BackgroundCall { try Child([step]) }
                let childUffd = try uffd.expectFork()
                let child = try fork.finish()
                // Only an unread event can be waited for without taking it.
                try Waiting.until("the child waits") { try childUffd.poll(timeout: .milliseconds(100)) }
                try child.kill()
                try expectEqual(
                    childUffd.raw(.copy, area.page(2), from: area.source(2..<3)), .refused(.noSuchProcess),
                    "COPY for a child that is gone")
                try expectEqual(childUffd.rawWake(area.range), 0, "answer of WAKE for a child that is gone")
            }
        },
    ]

    /// What the child got, the parent did not.
    private static func expectParentUntouched(_ area: Area, _ uffd: borrowing UserfaultFD, page: Int) throws {
        let entry = try PagemapEntry(of: area.address(page))
        try expect(!entry.isPresent, "the parent's page is as it was", seen: "\(entry)")
        // A page of a shared file is there for the parent too; only a private one is still missing.
        guard area.memory.isPrivate else { return }
        let touch = try Touch.read(area.address(page))
        try uffd.expectFault(at: area.address(page), [], thread: touch.thread.threadID)
        try uffd.copy(from: area.source(page..<page + 1, seed: 3), to: area.page(page))
        try touch.finish()
        try area.expectView(page, seed: 3)
    }
}
