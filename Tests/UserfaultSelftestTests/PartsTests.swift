import SystemPackage
import Testing

@testable import UserfaultSelftest

@Suite struct CrowdingTests {
    @Test func crowdedHostsAreTold() {
        let rows: [(line: String, processors: Int, factor: Double)] = [
            ("0.41 0.85 1.69 1/180 4242", 2, 1), ("30.17 12.0 8.0 3/400 1", 2, 12), ("1.00 1.0 1.0 9/400 1", 2, 4.5),
            ("8.00 8.0 8.0 1/90 7", 4, 2), ("", 2, 1), ("x y z w", 0, 1),
        ]
        for row in rows {
            #expect(Crowding.factor(loadavg: row.line, processors: row.processors) == row.factor, "\(row.line)")
        }
    }
}

@Suite struct KernelWatchTests {
    @Test func aWarningIsQuotedFromItsFirstLine() {
        let log: [Substring] = [
            "eth0: up", "------------[ cut here ]------------", "WARNING: CPU: 0 PID: 1 at mm/x.c", "RIP: 0",
        ]
        #expect(KernelWatch.suspicious(in: log) == ["kernel: WARNING: CPU: 0 PID: 1 at mm/x.c", "kernel: RIP: 0"])
    }

    @Test(arguments: [
        "BUG: Bad page map in process exe", "BUG: Bad rss-counter state mm:0 type:MM_SHMEMPAGES val:1",
        "Oops: 0000 [#1] SMP", "BUG: KASAN: use-after-free", "possible recursive locking detected",
        "mm/pgtable-generic.c:50: bad pmd 00000000deadbeef(8000000012345678)", "mm/pgtable-generic.c:29: bad pgd 1",
        "get_swap_device: Bad swap file entry 3ffffffffffff", "get_swap_device: Bad swap offset entry 1f",
        "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
        "kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    ])
    func complaintsAreNoticed(line: String) {
        #expect(!KernelWatch.suspicious(in: [Substring(line)]).isEmpty)
    }

    @Test func onlyTheKernelsOwnRecordsCount() {
        #expect(KernelWatch.message(of: "4,7,8,-;WARNING: bad\n SUBSYSTEM=x") == "WARNING: bad")
        #expect(KernelWatch.message(of: "12,7,8,-;WARNING: a program says so") == nil)
    }

    @Test func anEarlierTaintIsTold() {
        #expect(KernelWatch.note(ofTaint: 0) == nil)
        #expect(KernelWatch.note(ofTaint: 1 << 9 | 1 << 12)?.contains("warning, module from outside the tree") == true)
    }

    @Test(
        arguments: [
            (.notPermitted, "Operation not permitted; grant CAP_SYSLOG or set kernel.dmesg_restrict to 0"),
            (.permissionDenied, "Permission denied; run as root"),
            (.noSuchFileOrDirectory, "No such file or directory; give a container the device"),
            (.tooManyOpenFiles, "cannot be opened: Too many open files"),
        ] as [(Errno, String)])
    func aLogThatCannotBeReadIsExplained(error: Errno, reason: String) {
        let note = KernelWatch.note(ofLogError: error)
        #expect(note.hasPrefix("the kernel log is not watched: /dev/kmsg "))
        #expect(note.contains(reason))
    }

    @Test(arguments: [
        // What POISON is meant to do.
        "MCE: Killing exe:12 due to hardware memory corruption fault at 7f0000000000",
        "traps: exe[178] general protection fault ip:11c2cb9 sp:7f1a81ce7000 error:0 in exe[dc2cb9,400000+1060000]",
    ])
    func whatHappensToProgramsIsNoComplaint(line: String) {
        #expect(KernelWatch.suspicious(in: [Substring(line)]).isEmpty)
    }
}

@Suite struct SelectionTests {
    private let cases = [
        SelftestCase("minor", on: [.shmem, .shmemPrivate], "") { _ in },
        SelftestCase("UFFDIO_API (with /dev/userfaultfd)", "") { _ in },
    ]

    private func identities(_ filters: [String], _ memory: [MemoryType] = []) -> [String] {
        Selection(filters: filters, memory: memory).results(of: cases).map(\.identity)
    }

    @Test func globsMatchTheWholeIdentity() {
        #expect(identities([]).count == 3)
        #expect(identities(["minor/*"]) == ["minor/shmem", "minor/shmem-private"])
        #expect(identities(["min?r"]).isEmpty)
        #expect(identities(["minor"]) == ["minor/shmem", "minor/shmem-private"])
        #expect(identities(["*/shmem", "UFFDIO*"]) == ["minor/shmem", "UFFDIO_API (with /dev/userfaultfd)"])
    }

    @Test func casesWithoutMemoryBelongToNoMemoryType() {
        #expect(identities([], [.shmemPrivate]) == ["minor/shmem-private"])
    }

    @Test func onlyHugePagesNeedAPool() {
        let pools = { (selftestCase: SelftestCase) in
            selftestCase.results.map { $0.requirements.filter { if case .hugePages = $0 { true } else { false } } }
        }
        let selftestCase = SelftestCase("x", on: [.anon, .hugetlb], "", requires: [.root, .hugePages(4)]) { _ in }
        #expect(pools(selftestCase) == [[], [.hugePages(4)]])
        let silent = SelftestCase("y", on: [.hugetlb], "") { _ in }
        #expect(pools(silent) == [[.hugePages(32)]])
        let without = SelftestCase("z", "", requires: [.hugePages(2)]) { _ in }
        #expect(pools(without) == [[.hugePages(2)]])
    }

    @Test func whatACaseDeclaresReplacesTheUsual() {
        let selftestCase = SelftestCase("x", on: [.anon, .tmpfs], "", requires: [.threads(28)]) { _ in }
        let requirements = selftestCase.results.map(\.requirements)
        #expect(requirements[0] == [.threads(28), .descriptors(16), .addressSpace(256)])
        #expect(requirements[1] == requirements[0] + [.tmpfsRoom(2048)])
    }

    @Test func titlesAreUpstreams() {
        #expect(cases.flatMap(\.results).map(\.title).first == "minor on shmem")
    }
}

@Suite struct MeansTests {
    @Test func aShortageNamesTheNumbersAndTheRemedy() {
        var means = Means.assumed
        #expect(means.shortage(of: .threads(28), for: nil) == nil)
        means.threads = 27
        means.tmpfsRoom = nil
        let threads = means.shortage(of: .threads(28), for: nil)
        #expect(threads?.hasPrefix("needs 28 more threads, 27 can be had: raise the limits") == true)
        #expect(means.shortage(of: .tmpfsRoom(1), for: .tmpfs)?.contains("mount one on /dev/shm") == true)
    }

    @Test func lockedPagesAreOfTheResultsMemory() {
        var means = Means.assumed
        means.lockedMemory = 64
        #expect(means.shortage(of: .lockedPages(4), for: .anon) == nil)
        #expect(means.shortage(of: .lockedPages(1), for: .hugetlb) != nil)
    }
}

@Suite struct MessageBufferTests {
    @Test func messagesArriveInPieces() {
        var buffer = MessageBuffer()
        buffer.append(#"{"note":{"_0":"#.utf8)
        #expect(buffer.take(CaseMessage.self).isEmpty)
        buffer.append("\"seen\"}}\nrubbish\n".utf8)
        let messages = buffer.take(CaseMessage.self)
        guard messages.count == 1, case .note("seen") = messages[0] else {
            Issue.record("\(messages)")
            return
        }
    }
}
