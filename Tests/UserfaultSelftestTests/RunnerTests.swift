import Foundation
import Testing

/// What becomes of cases that end in every possible way.
///
/// The cases are hidden ones, `selfcheck-*`.
@Suite(.timeLimit(.minutes(5)))
struct RunnerTests {
    private struct Report: Decodable {
        struct Result: Decodable {
            let `case`: String
            let memory: String?
            let outcome: String
            let reason: String?
            let detail: String?
        }
        let results: [Result]
        let totals: [String: Int]
    }

    private func result(of name: String, environment: String...) throws -> Report.Result {
        let command = environment + [SelftestProgram.path, "run", "--filter", name, "--format", "json"]
        let answer = try SelftestProgram.start(command[0], Array(command[1...]))
        let report = try JSONDecoder().decode(Report.self, from: Data(answer.output.utf8))
        return try #require(report.results.first)
    }

    @Test func aCaseThatReturnsPasses() throws {
        let result = try result(of: "selfcheck-pass/shmem")
        #expect(result.outcome == "pass")
        #expect(result.memory == "shmem")
        #expect(result.detail == "seen on shmem")
    }

    @Test func aFailureTellsWhatWasExpectedAndWhatWasSeen() throws {
        let result = try result(of: "selfcheck-fail")
        #expect(result.outcome == "fail")
        #expect(result.memory == nil)
        #expect(result.reason == "the sum: 3; seen: 2")
        let detail = try #require(result.detail)
        #expect(detail.contains("breaks: a case that expects too much fails"))
        #expect(detail.contains("SelfCheckCases.swift:"))
        #expect(detail.contains("evidence <&> ?[31m"), "control characters are not passed on")
    }

    @Test func aCaseMaySkipItself() throws {
        let result = try result(of: "selfcheck-skip")
        #expect(result.outcome == "skip")
        #expect(result.reason == "nothing to see")
    }

    @Test func whatChanceKeepsFromAVerdictIsTriedAgain() throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try Data().write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        let result = try result(of: "selfcheck-chance", environment: "UFFD_SELFTEST_TRIES=\(file.path)")
        #expect(result.outcome == "pass")
        #expect(result.detail == "try 1: this time no luck at try 1\ntry 2: this time no luck at try 2")
    }

    @Test func tryingAgainEnds() throws {
        let result = try result(of: "selfcheck-chance")
        #expect(result.outcome == "skip")
        #expect(result.reason == "this time no luck")
        #expect(result.detail == "try 1: this time no luck\ntry 2: this time no luck")
    }

    @Test func aMissingRequirementIsASkip() throws {
        let result = try result(of: "selfcheck-require")
        #expect(result.outcome == "skip")
        #expect(result.reason == "this host has no /nowhere: install it")
    }

    @Test func aHangEndsAtItsLimitAndTellsWhereTheThreadsAre() throws {
        // As on a fast host, so that only other programs that run at this moment make the limit longer.
        let result = try result(of: "selfcheck-hang", environment: "UFFD_SELFTEST_SLOWNESS=1")
        #expect(result.outcome == "fail")
        let reason = try #require(result.reason)
        #expect(reason.hasPrefix("it did not end within "))
        let limit = try #require(reason.split(separator: " ").compactMap { Double($0) }.first)
        #expect(limit < 10, "the limit of this case, not that of others")
        let detail = try #require(result.detail)
        #expect(detail.contains("about to wait for ever"), "what was recorded before the hang")
        #expect(detail.contains("(selfcheck-hang): state S"))
    }

    @Test func aCaseStuckInAFaultShowsItsUserfaultfd() throws {
        let detail = try #require(try result(of: "selfcheck-fault").detail)
        #expect(detail.contains("pending: 1, total: 1"))
        #expect(detail.contains("handle_userfault"))
    }

    @Test func theTimeoutOptionReplacesTheLimit() throws {
        let answer = try SelftestProgram.run("run", "--filter", "selfcheck-hang", "--timeout", "0.05")
        #expect(answer.output.contains("it did not end within 0.05 seconds"))
    }

    @Test func aSignalIsAFailureWithItsName() throws {
        #expect(try result(of: "selfcheck-crash").reason == "it was killed by SIGSEGV")
    }

    @Test func anEndWithoutAVerdictIsAFailure() throws {
        #expect(try result(of: "selfcheck-exit").reason == "it ended with exit code 3 and without a verdict")
    }

    @Test func aFloodOfOutputIsCut() throws {
        let detail = try #require(try result(of: "selfcheck-flood").detail)
        #expect(detail.contains("printed: xxx"))
        #expect(detail.contains("output cut after"))
        #expect(detail.utf8.count < 4096)
    }

    @Test func aProcessLeftBehindIsKilled() throws {
        let detail = try #require(try result(of: "selfcheck-stray").detail)
        #expect(detail.contains("left 1 processes behind"))
        let line = try #require(detail.split(separator: "\n").first { $0.hasPrefix("stray ") })
        let pid = try #require(Int32(line.dropFirst("stray ".count)))
        #expect(kill(pid, 0) == -1 && errno == ESRCH)
    }

    @Test func aCaseInheritsNothingFromTheRunnersParent() throws {
        let command = "exec 9</dev/null; \(SelftestProgram.path) run --filter selfcheck-descriptors"
        let answer = try SelftestProgram.start("bash", ["-c", command])
        #expect(answer.exitCode == 0, "\(answer.output)")
    }

    @Test func guardedAccessesAndForkedChildrenWork() throws {
        #expect(try result(of: "selfcheck-guarded").outcome == "pass")
        #expect(try result(of: "selfcheck-children").outcome == "pass")
    }
}
