import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultFD

/// A userfaultfd in another process than the one whose memory it guards, also when that one is gone.
enum OtherProcessCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "process-manager",
            "a process that holds another's userfaultfd resolves its faults, from memory of its own",
            requires: [.features(.threadID)], covers: [.threadIDs, .passedDescriptors]
        ) { _ in
            let target = try TargetProcess(features: .threadID) {
                [.load($0.start + 8), .load($0.start + UInt(PageSize.base.bytes)), .pause]
            }
            let source = try Mapping(anonymous: PageSize.base.bytes).release()
            Pattern.write(seed: 9, page: 0, at: source.start, count: source.count)
            try target.child.resume()
            try target.uffd.expectFault(at: target.page(0).start, [], thread: target.child.processID)
            if target.uffd.supportedFeatures.contains(.move) {
                try expectEqual(
                    target.uffd.raw(.move, target.page(0), source: source.start), .refused(.invalidArgument),
                    "MOVE into another process' memory")
            }
            try expectEqual(
                target.uffd.raw(.copy, target.page(0), source: source.start), .done(source.count),
                "COPY into another process' memory")
            try target.uffd.expectFault(at: target.page(1).start, [], thread: target.child.processID)
            try expectEqual(
                target.uffd.raw(.zeropage, target.page(1)), .done(source.count), "ZEROPAGE of another process' memory")
            try target.child.waitPaused()
            // The same addresses of this process were never touched.
            try expect(!PagemapEntry(of: target.page(0).start).isPresent, "this process' own page is not there")
            try expectEqual(MappingAccount(holding: target.memory.start).userfaultFlags, [], "this process' own flags")
            try target.uffd.unregister(target.memory)
            try target.uffd.register(target.page(0), modes: .missing)
            try target.child.resume()
            let byte = Int64(UInt8(truncatingIfNeeded: Pattern.word(seed: 9, page: 0, index: 1)))
            try expectEqual(Array(target.child.finish()[2..<4]), [byte, 0], "what the child read")
        },
        SelftestCase(
            "process-killed", "a process that waits for a fault can be killed, and takes its message along",
            covers: [.signals]
        ) { _ in
            let target = try TargetProcess { [.load($0.start)] }
            try target.child.resume()
            try target.uffd.waitBlocked(1)
            try expectEqual(kill(target.child.processID, SIGKILL), 0, "answer of kill")
            try waitKilled(target.child, by: SIGKILL)
            try target.uffd.expectWaiters(pending: 0, total: 0, "after the process was killed")
            try target.uffd.expectNoMessage("nobody waits any more")
            try target.uffd.expectProcessGone(target.page(1))
        },
        SelftestCase(
            "process-stopped", "a process that is stopped while it waits for a fault goes on after SIGCONT",
            covers: [.signals]
        ) { _ in
            let target = try TargetProcess { [.load($0.start)] }
            try target.child.resume()
            try target.uffd.expectFault(at: target.page(0).start, [])
            let state = { ProcFile.text("/proc/\(target.child.processID)/stat")?.split(separator: ") ").last?.first }
            try Waiting.until("the child sleeps") { state() == "S" }
            kill(target.child.processID, SIGSTOP)
            try Waiting.until("the child is stopped") { state() == "T" }
            kill(target.child.processID, SIGCONT)
            try target.uffd.expectFault(at: target.page(0).start, [])
            try target.uffd.zeropage(target.page(0))
            try expectEqual(target.child.finish()[2], 0, "what the child read")
        },
        SelftestCase(
            "process-inherited", "a registration lives as long as a child has inherited the descriptor",
            covers: [.passedDescriptors]
        ) { _ in
            let memory = try reserve(PageSize.base.bytes)
            try checked(RawMemory.protect(memory, .readWrite))
            let uffd = try UserfaultFD()
            try uffd.register(memory, modes: .missing)
            let child = try Child([.pause])
            try child.waitPaused()
            let touch = try Touch.read(memory.start)
            try uffd.expectFault(at: memory.start, [])
            try touch.thread.waitAsleep()
            try uffd.close()
            try touch.thread.expectStillAsleep("a child holds the userfaultfd")
            try expectEqual(MappingAccount(holding: memory.start).userfaultFlags, ["um"], "userfaultfd flags")
            try child.resume()
            try child.finish()
            try touch.finish(with: 0, "the child is gone, and the userfaultfd with it")
            try expectEqual(MappingAccount(holding: memory.start).userfaultFlags, [], "userfaultfd flags at the end")
        },
        SelftestCase(
            "process-namespace", "a message names the thread as its own process id namespace does",
            requires: [.features(.threadID)], covers: [.threadIDs]
        ) { context in
            if geteuid() != 0 { try Privilege.enterUserNamespace() }
            try Privilege.enterProcessNamespace()
            let target = try TargetProcess(features: .threadID) { [.load($0.start)] }
            try target.child.resume()
            try target.uffd.expectFault(at: target.page(0).start, [], thread: 1)
            try target.uffd.zeropage(target.page(0))
            try expectEqual(target.child.finish()[2], 0, "what the child read")
        },
        SelftestCase(
            "process-remote-access", on: [.anon, .shmem],
            "another process that accesses missing memory waits for it, and the message names that process",
            requires: [.missingFaults, .kernelFaults, .features(.threadID)], covers: [.threadIDs, .remoteAccess]
        ) { context in
            for access in [KernelAccess.processRead, .processWrite] where access.isPossible {
                let area = try Area(context)
                let uffd = try area.registered(
                    .missing, features: .threadID, options: .init(faults: .userAndKernelMode))
                let address = area.address(1) + PageFault.Kind.offset
                let child = try Child([.access(access, address, count: 64)])
                try uffd.expectFault(
                    at: area.address(1), access.isStore ? .write : [], thread: child.processID)
                try uffd.expectWaiters(pending: 0, total: 1, "with \(access.rawValue) of another process")
                try uffd.copy(from: area.source(1..<2), to: area.page(1))
                try expectEqual(child.finish(), [64], "bytes of \(access.rawValue)")
                let byte = access.isStore ? 0xEE : PageFault.Kind.missing.byte(1)
                try expectEqual(Touch.load(address), .byte(byte), "the byte after \(access.rawValue)")
                try uffd.expectNoMessage("the fault is resolved")
            }
        },
        SelftestCase(
            "process-exit-thread", "a thread that exits does not wait for a page, whatever the kernel touches then",
            requires: [.kernelFaults], covers: [.dumpAndExit]
        ) { _ in
            let guarded = try GuardedMemory(pages: 1, options: .init(faults: .userAndKernelMode))
            let address = guarded.address(0)
            let thread = try TestThread { css_exit_thread_clearing(address) }
            try Waiting.until("the thread is gone") { thread.state == nil }
            try guarded.uffd.expectNoMessage("an exiting thread makes no message")
            try guarded.uffd.expectWaiters(pending: 0, total: 0, "after a thread's exit")
        },
        SelftestCase(
            "process-core-dump", "a core dump does not wait for missing pages",
            requires: [
                .kernelFaults, .privateMounts,
                .setting(SystemSetting(path: "/proc/sys/kernel/core_pattern"), "/tmp/core"),
            ], covers: [.dumpAndExit]
        ) { context in
            let directory = try context.mountPrivateTmpfs(options: "size=256m")
            let target = try TargetProcess(kernelFaults: true, then: [.abort])
            try target.child.resume()
            let status = try waitKilled(target.child, by: SIGABRT)
            try target.uffd.expectNoMessage("a core dump makes no message")
            // The file may carry the process' number, where a setting asks for it.
            let cores = ProcFile.entries(directory).filter { $0.hasPrefix("core") }
            guard status & 0x80 != 0, !cores.isEmpty else {
                try context.skip(
                    "no core was written: raise its hard limit (ulimit -Hc), or use a kernel with CONFIG_COREDUMP")
            }
        },
    ]

    /// Waits for a child's end, which a signal must have brought about; answers the wait status.
    @discardableResult
    private static func waitKilled(_ child: Child, by signal: Int32) throws -> Int32 {
        var status: Int32 = 0
        try Waiting.until("the child dies of signal \(signal)") {
            waitpid(child.processID, &status, WNOHANG) == child.processID
        }
        try expectEqual(status & 0x7F, signal, "signal that ended the child")
        return status
    }
}
