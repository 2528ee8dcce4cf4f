import Testing

@testable import UserfaultSelftest

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
    ])
    func complaintsAreNoticed(line: String) {
        #expect(!KernelWatch.suspicious(in: [Substring(line)]).isEmpty)
    }

    @Test func onlyTheKernelsOwnRecordsCount() {
        #expect(KernelWatch.message(of: "4,7,8,-;WARNING: bad\n SUBSYSTEM=x") == "WARNING: bad")
        #expect(KernelWatch.message(of: "12,7,8,-;WARNING: a program says so") == nil)
    }

    @Test func whatPoisonLawfullyDoesIsNoComplaint() {
        let line = "MCE: Killing exe:12 due to hardware memory corruption fault at 7f0000000000"
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
        #expect(identities(["minor"]).isEmpty)
        #expect(identities(["*/shmem", "UFFDIO*"]) == ["minor/shmem", "UFFDIO_API (with /dev/userfaultfd)"])
    }

    @Test func casesWithoutMemoryBelongToNoMemoryType() {
        #expect(identities([], [.shmemPrivate]) == ["minor/shmem-private"])
    }

    @Test func onlyHugePagesNeedAPool() {
        let selftestCase = SelftestCase("x", on: [.anon, .hugetlb], "", requires: [.root, .hugePages(4)]) { _ in }
        #expect(selftestCase.results.map(\.requirements) == [[.root], [.root, .hugePages(4)]])
        let silent = SelftestCase("y", on: [.hugetlb], "") { _ in }
        #expect(silent.results.map(\.requirements) == [[.hugePages(32)]])
    }

    @Test func titlesAreUpstreams() {
        #expect(cases.flatMap(\.results).map(\.title).first == "minor on shmem")
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
