import Foundation
import Testing

@testable import UserfaultSelftest

/// Each format is read by a program that others wrote.
@Suite(.timeLimit(.minutes(5)))
struct ReporterTests {
    /// Two passes, one failure with awkward characters, one skip.
    private func run(_ format: String) throws -> SelftestProgram.Answer {
        let filters = ["pass/*", "fail", "skip"].flatMap { ["--filter", "selfcheck-\($0)"] }
        return try SelftestProgram.start(SelftestProgram.path, ["run", "--format", format] + filters)
    }

    @Test func tapIsReadByProve() throws {
        let answer = try run("tap")
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID()).tap")
        try Data(answer.output.utf8).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        let proof = try SelftestProgram.start("prove", ["--exec", "cat", file.path])
        #expect(proof.exitCode == 1)
        #expect(proof.output.contains("Failed 1/4 subtests"))
        #expect(proof.output.contains("(less 1 skipped subtest: 2 okay)"))
        #expect(!proof.output.contains("Parse errors"))
    }

    @Test func tapIsWhatKselftestPrints() throws {
        let lines = try run("tap").output.split(separator: "\n").map(String.init)
        #expect(lines.prefix(2) == ["TAP version 13", "1..4"])
        #expect(lines.contains("ok 1 selfcheck-pass on anon"))
        #expect(lines.contains("not ok 3 selfcheck-fail"))
        #expect(lines.contains("ok 4 selfcheck-skip # SKIP nothing to see"))
        #expect(lines.last == "# Totals: pass:2 fail:1 xfail:0 xpass:0 skip:1 error:0")
    }

    @Test func ktapNestsTheMemoryTypes() throws {
        let lines = try run("ktap").output.split(separator: "\n").map(String.init)
        #expect(lines.prefix(2) == ["KTAP version 1", "1..3"])
        let nested = lines.filter { $0.hasPrefix("  ") && !$0.contains("#") }
        #expect(nested == ["  KTAP version 1", "  1..2", "  ok 1 anon", "  ok 2 shmem"])
        #expect(
            lines.filter { $0.contains(#/^(not )?ok /#) } == [
                "ok 1 selfcheck-pass", "not ok 2 selfcheck-fail", "ok 3 selfcheck-skip # SKIP nothing to see",
            ])
    }

    @Test(arguments: ["tap", "ktap", "junit", "json", "kcidb"])
    func reportsTellTheVersion(format: String) throws {
        let expected =
            switch format {
            case "json": #""selftest":"\#(Version.text)""#
            case "kcidb": #""uffd-selftest":"\#(Version.text)""#
            case "junit": #"<property name="selftest" value="\#(Version.text)"/>"#
            default: "# uffd-selftest \(Version.text) on Linux "
            }
        #expect(try run(format).output.contains(expected))
    }

    /// What a run has written to a file that is killed while its third result runs.
    private func fileOfKilledRun(_ format: String) throws -> String {
        let script = """
            file=$(mktemp); filters="--filter selfcheck-pass/* --filter selfcheck-hang"
            \(SelftestProgram.path) run $filters --timeout 60 --format \(format) --output $file & run=$!
            for _ in $(seq 200); do pgrep -f "run-case selfcheck-hang .*--runner $run" >&2 && break; sleep 0.1; done
            kill -KILL $run; wait $run; cat $file; rm $file
            """
        return try SelftestProgram.start("bash", ["-fc", script]).output
    }

    @Test func aKilledRunLeavesAWholeJSONDocument() throws {
        let script = "import json, sys; r = json.load(sys.stdin); print(len(r['results']), r['interrupted'])"
        let answer = try SelftestProgram.python(script, input: try fileOfKilledRun("json"))
        #expect(answer == "2 the report was not finished")
    }

    @Test func aKilledRunLeavesAWholeJUnitDocument() throws {
        let schema = try #require(Bundle.module.path(forResource: "junit", ofType: "xsd"))
        let document = try fileOfKilledRun("junit")
        let answer = try SelftestProgram.start("xmllint", ["--noout", "--schema", schema, "-"], input: document)
        #expect(answer.exitCode == 0, "\(answer.errors)")
        #expect(document.contains("tests=\"2\"") && document.contains("the report was not finished"))
    }

    @Test func junitIsValidByItsSchema() throws {
        let schema = try #require(Bundle.module.path(forResource: "junit", ofType: "xsd"))
        let answer = try SelftestProgram.start(
            "xmllint", ["--noout", "--schema", schema, "-"], input: try run("junit").output)
        #expect(answer.exitCode == 0, "\(answer.errors)")
    }

    @Test func junitHoldsWhatHappened() throws {
        let script = """
            import sys, xml.etree.ElementTree as tree
            from datetime import datetime, timezone
            suite = tree.parse(sys.stdin).getroot().find("testsuite")
            print(*(suite.get(name) for name in ("tests", "failures", "errors", "skipped")))
            print(*(case.get("classname") + ":" + case.get("name") for case in suite.iter("testcase")), sep=", ")
            start = datetime.fromisoformat(suite.get("timestamp") + "+00:00")
            print(abs((datetime.now(timezone.utc) - start).total_seconds()) < 3600)
            print(suite.find(".//failure").get("message"))
            print("evidence <&> ?[31m" in suite.find(".//failure").text, suite.find(".//skipped").get("message"))
            """
        let answer = try SelftestProgram.python(script, input: try run("junit").output)
        #expect(
            answer == """
                4 1 0 1
                userfaultfd.anon:selfcheck-pass on anon, userfaultfd.shmem:selfcheck-pass on shmem, \
                userfaultfd.descriptor:selfcheck-fail, userfaultfd.descriptor:selfcheck-skip
                True
                the sum: 3; seen: 2
                True nothing to see
                """)
    }

    @Test func jsonHasTheKeysOfTheContract() throws {
        let script = """
            import json, sys
            report = json.load(sys.stdin)
            print(*sorted(report))
            print({tuple(sorted(result)) for result in report["results"]})
            print([(result["case"], result["memory"], result["outcome"]) for result in report["results"]][1:3])
            print([result["cause"] for result in report["results"]])
            print(report["planned"], report["interrupted"])
            print(report["totals"] == {"pass": 2, "fail": 1, "skip": 1, "xfail": 0, "xpass": 0}, "EVENT_FORK" in report["features"])
            """
        let answer = try SelftestProgram.python(script, input: try run("json").output)
        #expect(
            answer == """
                features host interrupted kernel machine notes planned results selftest totals
                {('case', 'cause', 'detail', 'memory', 'outcome', 'reason', 'run', 'seconds')}
                [('selfcheck-pass', 'shmem', 'pass'), ('selfcheck-fail', None, 'fail')]
                [None, None, None, 'host']
                4 None
                True True
                """)
    }

    @Test(
        arguments: [
            ("selfcheck-skip", [String](), "host"), ("selfcheck-chance", [], "chance"),
            ("selfcheck-require", [], "host"), ("selfcheck-pass", ["--time-budget", "0.000001"], "options"),
            ("selfcheck-host-provided", ["--no-system-changes"], "options"), ("selfcheck-future", [], "kernel"),
        ])
    func aSkipSaysWhoseDoingItIs(name: String, options: [String], cause: String) throws {
        let arguments = ["run", "--filter", name, "--format", "json"] + options
        let report = try SelftestProgram.start(SelftestProgram.path, arguments).output
        let script = "import json, sys; print({result['cause'] for result in json.load(sys.stdin)['results']})"
        #expect(try SelftestProgram.python(script, input: report) == "{'\(cause)'}")
    }

    @Test(
        arguments: [
            ("/dev/kvm-that-nobody-has", SkipCause.host, "no /dev/kvm-that-nobody-has: load its module"),
            ("/sys/devices/system/node/node4711", .host, "this host has no second NUMA node"),
            ("/sys/kernel/mm/papyrus", .kernel, "this kernel has no /sys/kernel/mm/papyrus"),
            ("/proc/papyrus", .kernel, "this kernel has no /proc/papyrus"),
            ("/papyrus", .host, "this host has no /papyrus: install it"),
        ])
    func aFileThatIsMissingIsNoFaultOfTheKernelsAlways(path: String, cause: SkipCause, text: String) {
        let lack = Conditions.absence(of: path)
        #expect(lack.cause == cause && lack.reason.hasPrefix(text))
    }

    @Test func prettyListsFailuresAndGroupsSkips() throws {
        let output = try run("pretty").output
        #expect(output.contains("ok    selfcheck-pass  anon shmem\n"))
        #expect(output.contains("FAIL  selfcheck-fail"))
        #expect(output.contains("failure 1: selfcheck-fail\n  the sum: 3; seen: 2"))
        #expect(output.contains("skipped (1): nothing to see\n    selfcheck-skip"))
        #expect(output.contains("2 passed, 1 failed, 1 skipped in "))
        #expect(!output.contains("\u{1b}"), "no control sequences outside a terminal")
    }

    @Test(arguments: [(variable: "NO_COLOR=1", coloured: false), (variable: "TERM=xterm", coloured: true)])
    func coloursAreForTerminalsThatWantThem(variable: String, coloured: Bool) throws {
        // script(1) gives the program a terminal.
        let command = "env -u NO_COLOR TERM=xterm \(variable) \(SelftestProgram.path) run --filter selfcheck-fail"
        let answer = try SelftestProgram.start("script", ["-qec", command, "/dev/null"])
        #expect(answer.output.contains("[1/1] selfcheck-fail"), "progress is shown")
        #expect(answer.output.contains("\u{1b}[31m") == coloured)
        #expect(answer.exitCode == 1)
    }
}
