import Foundation
import Testing

@testable import UserfaultSelftest

/// Which results a run has, in which order, and when it stops.
@Suite(.timeLimit(.minutes(5)))
struct RunOptionTests {
    /// Two passes, a failure and a skip.
    private static let some = ["--filter", "selfcheck-[pfs][ak][is]*"]

    private func run(_ arguments: String...) throws -> SelftestProgram.Answer {
        try SelftestProgram.start(SelftestProgram.path, ["run"] + Self.some + arguments)
    }

    @Test func resultsRunSideBySideAndAreReportedInOrder() throws {
        let answer = try run("--jobs", "3")
        let results = answer.output.split(separator: "\n").filter { $0.contains(#/^(not )?ok /#) }
        #expect(
            results == [
                "ok 1 selfcheck-pass on anon", "ok 2 selfcheck-pass on shmem", "not ok 3 selfcheck-fail",
                "ok 4 selfcheck-skip # SKIP nothing to see",
            ])
    }

    @Test func asManyRunAtOnceAsWasAsked() throws {
        let script = """
            \(SelftestProgram.path) run --filter selfcheck-hang --repeat 5 --jobs 3 --timeout 60 & run=$!
            for _ in $(seq 300); do
                count=$(pgrep -c -f "run-case selfcheck-hang .*--runner $run"); [ $count = 3 ] && break; sleep 0.1
            done
            kill -INT $run; wait $run; echo "$? $count"
            """
        #expect(try SelftestProgram.start("bash", ["-c", script]).output.hasSuffix("130 3\n"))
    }

    @Test func whatChangesOrMeasuresTheHostRunsAlone() {
        let alone = { (requirement: Requirement) in
            SelftestCase("x", on: [.anon, .hugetlb], "", requires: [requirement]) { _ in }.results.map(\.isAlone)
        }
        #expect(alone(.missingFaults) == [false, true])
        #expect(alone(.swap) == [true, true])
        #expect(alone(.ownSwap) == [true, true])
        #expect(alone(.transparentHugePages) == [true, true])
        #expect(alone(.alone) == [true, true])
    }

    @Test func aRunCanStopAtTheFirstFailure() throws {
        let answer = try run("--fail-fast")
        #expect(answer.exitCode == 1)
        #expect(answer.output.contains("not ok 3 selfcheck-fail"))
        #expect(!answer.output.contains("selfcheck-skip"))
        #expect(answer.output.contains("Bail out! stopped by the first failure\n"))
    }

    @Test func whatTheBudgetHasNoTimeForIsSkipped() throws {
        let answer = try run("--time-budget", "0.000001")
        #expect(answer.exitCode == 4)
        #expect(answer.output.contains("ok 4 selfcheck-skip # SKIP the time budget of"))
    }

    @Test func anOrderByChanceIsRepeatedByItsSeed() throws {
        let results = AllCases.cases.flatMap(\.results)
        let order = { (seed: Int?, number: Int) in
            Plan(results: results, repetitions: 3, seed: seed).iteration(number).map(\.identity)
        }
        #expect(order(nil, 2) == results.map(\.identity))
        #expect(order(7, 1) == order(7, 1))
        #expect(order(7, 1) != order(8, 1))
        #expect(order(7, 1) != order(7, 2))
        #expect(order(7, 1).sorted() == results.map(\.identity).sorted())
        let names = order(7, 1).map { $0.prefix { $0 != "/" } }
        let changes = zip(names, names.dropFirst()).count { $0 != $1 }
        #expect(changes == Set(names).count - 1, "the results of a case stay together")
        #expect(try run("--shuffle").output.contains("# the order is by chance: --shuffle "))
        #expect(try run("--shuffle", "7").output.contains("--shuffle 7 repeats it"))
    }

    @Test func theRepetitionIsShown() throws {
        let output = try run("--repeat", "2").output
        #expect(output.contains("ok 1 selfcheck-pass on anon (run 1 of 2)\n"))
        #expect(output.contains("not ok 7 selfcheck-fail (run 2 of 2)\n"))
    }

    @Test func aFailureTellsTheCommandThatRepeatsIt() throws {
        let output = try run("--no-system-changes").output
        #expect(output.contains("# again: uffd-selftest run --filter 'selfcheck-fail' --no-system-changes\n"))
        let lossy = try run("--lose-memory").output
        #expect(lossy.contains("# again: uffd-selftest run --filter 'selfcheck-fail' --lose-memory\n"))
    }

    @Test func memoryIsNotLostWithoutASystemChange() throws {
        let answer = try run("--lose-memory", "--no-system-changes")
        #expect(answer.exitCode == 64)
        #expect(answer.errors.contains("--lose-memory changes the system"))
    }

    @Test func whatKernelsAreKnownForIsBuiltIn() throws {
        let answer = try run("--known-failures", "builtin")
        #expect(answer.exitCode == 1)
        #expect(answer.output.contains("not ok 3 selfcheck-fail\n"))
        let result = try #require(
            AllCases.cases.flatMap(\.results).first { $0.identity == "event-remap-beside/anon" })
        #expect(KnownFailures.builtIn.known(for: result, release: "6.18.44-generic") != nil)
        #expect(KnownFailures.builtIn.known(for: result, release: "7.3.0") == nil)
    }

    /// Without a list, a failure of a kernel that is known for it says so.
    @Test func aFailureSaysThatItIsKnown() throws {
        let answer = try SelftestProgram.run("run", "--filter", "event-remap-beside/anon", "--no-system-changes")
        let isKnown = answer.exitCode == 1
        #expect(answer.output.contains("# known of this kernel: ") == isKnown)
        #expect(answer.output.contains("with --known-failures builtin they do not count\n") == isKnown)
    }

    @Test func knownFailuresDoNotCount() throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID()).json")
        defer { try? FileManager.default.removeItem(at: file) }
        let series = Host().kernel.split { !$0.isNumber }.prefix(2).joined(separator: ".")
        func run(_ text: String) throws -> SelftestProgram.Answer {
            try Data(text.utf8).write(to: file)
            return try self.run("--known-failures", file.path)
        }
        let cases = #""what": "sums are wrong", "cases": ["selfcheck-fail", "selfcheck-pass/anon"]"#
        let known = try run(#"[{\#(cases), "series": ["\#(series)"]}]"#)
        #expect(known.exitCode == 0)
        #expect(known.output.contains("ok 3 selfcheck-fail # XFAIL known: sums are wrong\n# seen: the sum: 3;"))
        #expect(known.output.contains("# it passed, although it is known to fail: sums are wrong\n"))
        #expect(known.output.contains("# Totals: pass:1 fail:0 xfail:1 xpass:1 skip:1 error:0"))
        let sometimes = try run(#"[{\#(cases), "sometimes": true}]"#)
        #expect(sometimes.output.contains("# Totals: pass:2 fail:0 xfail:1 xpass:0 skip:1 error:0"))
        let other = try run(#"[{"what": "sums are wrong", "cases": ["selfcheck-fail"], "series": ["2.4"]}]"#)
        #expect(other.exitCode == 1)
        let broken = try run("{}")
        #expect(broken.exitCode == 64)
        #expect(broken.errors.contains("is not a list of known failures"))
        for (text, place) in [
            (
                #"[{"what": "", "cases": ["selfcheck-fail"]}, {"what": "", "cases": ["selfcheck-fail"], "serie": []}]"#,
                "entry 2: 'serie' is unknown, there are what, cases, series, sometimes"
            ),
            (#"[{"what": ""}]"#, "entry 1: 'cases' is missing"),
            (#"[{"what": "", "cases": []}]"#, "entry 1: it names no cases"),
            (#"[{"what": "", "cases": ["selfcheck-fail"], "series": ["v6.18"]}]"#, "'v6.18' is no kernel series"),
        ] {
            let answer = try run(text)
            #expect(answer.exitCode == 64 && answer.errors.contains(place), "\(answer.errors)")
        }
        let slip = try run(#"[{"what": "sums are wrong", "cases": ["selfcheck-fial"]}]"#)
        #expect(slip.exitCode == 64)
        #expect(slip.errors.contains("entry 1: no case or result is called 'selfcheck-fial'"))
    }

    @Test func theVersionIsPrinted() throws {
        #expect(try SelftestProgram.run("--version").output.hasPrefix("uffd-selftest \(Version.text), "))
        for option in ["--version", "--help"] {
            let command = "\(SelftestProgram.path) \(option) >/dev/full"
            #expect(try SelftestProgram.start("bash", ["-c", command]).exitCode == 74)
        }
    }
}
