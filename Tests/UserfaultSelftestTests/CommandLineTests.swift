import Foundation
import Testing

@testable import UserfaultSelftest

@Suite(.timeLimit(.minutes(5)))
struct CommandLineTests {
    @Test(arguments: [
        (["selfcheck-pass/*"], 0), (["selfcheck-pass/anon", "selfcheck-fail"], 1), (["selfcheck-skip"], 4),
        (["selfcheck-pass/anon", "selfcheck-skip"], 0), (["no-such-case/*"], 64), (["selfcheck-pass"], 0),
    ])
    func theExitCodeSaysHowItWent(filters: [String], code: Int) throws {
        let arguments = filters.flatMap { ["--filter", $0] }
        #expect(try SelftestProgram.start(SelftestProgram.path, arguments).exitCode == Int32(code))
    }

    @Test func requiringNoSkipsMakesASkipAFailure() throws {
        let answer = try SelftestProgram.run("--filter", "selfcheck-skip", "--require-no-skips")
        #expect(answer.exitCode == 1)
        #expect(answer.output.contains("not ok 1 selfcheck-skip\n# failed: skipped: nothing to see"))
    }

    @Test func aFilterThatMatchesNothingIsExplained() throws {
        let answer = try SelftestProgram.run("run", "--filter", "selfcheck-p*s")
        #expect(answer.errors.contains("no result matches 'selfcheck-p*s'"))
        #expect(answer.errors.contains("'selfcheck-p*s/*' does"))
        #expect(try SelftestProgram.run("run", "--filter", "none/*").errors.contains("see uffd-selftest list"))
    }

    @Test(
        arguments: [
            ("minor on shmem", ["minor/shmem"]), ("minor on shmem (run 2 of 3)", ["minor/shmem"]),
            ("minor on shmem, hugetlb", ["minor/shmem", "minor/hugetlb"]),
            ("register-low (run 1 of 2)", ["register-low"]), ("move on *", ["move/anon"]),
            ("move (run 1 of 2)", ["move/anon"]),
        ])
    func whatAReportCallsAResultIsAFilter(name: String, results: [String]) throws {
        #expect(Selection(filters: [name]).results().map(\.identity) == results)
        #expect(Selection(filters: [name]).uselessGlobs() == [])
        var selection = Selection(filters: ["minor/*", "move*", "register-low"])
        selection.excludes = [name]
        #expect(Set(selection.results().map(\.identity)).isDisjoint(with: results))
    }

    @Test func resultsWithATagAreLeftOut() throws {
        let all = try SelftestProgram.run("list", "--filter", "minor*", "--filter", "move*").output
        let rest = try SelftestProgram.run(
            "list", "--filter", "minor*", "--filter", "move*", "--exclude-tag", "move", "--exclude-tag", "slow")
        #expect(all.contains("move/anon\n") && all.contains("minor/shmem\n"))
        #expect(!rest.output.contains("move/anon\n") && rest.output.contains("minor/shmem\n"))
        #expect(try SelftestProgram.run("list", "--exclude-tag", "papyrus").errors.contains("has the tag 'papyrus'"))
    }

    @Test func standardOutputIsAFileToo() throws {
        let answer = try SelftestProgram.run("--filter", "selfcheck-pass", "--output", "-")
        #expect(answer.output.contains("ok 2 selfcheck-pass on shmem\n"))
        #expect(!FileManager.default.fileExists(atPath: "-"))
        let nameless = try SelftestProgram.run("--filter", "selfcheck-pass", "--output", "")
        #expect(nameless.exitCode == 64 && nameless.errors.contains("--output needs the name of a file"))
    }

    @Test(arguments: ["abc", "99999999999999999999", "1.5"])
    func aSeedIsANumber(word: String) throws {
        let answer = try SelftestProgram.run("--filter", "selfcheck-pass", "--shuffle", word)
        #expect(answer.exitCode == 64)
        #expect(answer.errors.contains("--shuffle needs a number from 0 to 9223372036854775807, not '\(word)'"))
    }

    @Test func helpIsTheSameEachTime() throws {
        let help = try SelftestProgram.run("run", "--help").output
        #expect(help.contains("--shuffle"))
        #expect(try SelftestProgram.run("run", "--help").output == help)
    }

    @Test func memoryTypesNarrowTheSelection() throws {
        let answer = try SelftestProgram.run("--filter", "selfcheck-*", "--memory", "shmem")
        #expect(answer.output.contains("1..1\n"))
        #expect(answer.output.contains("ok 1 selfcheck-pass on shmem"))
        #expect(try SelftestProgram.run("--memory", "papyrus").exitCode == 64)
    }

    @Test func repeatingRunsEverythingSoOften() throws {
        let answer = try SelftestProgram.run("--filter", "selfcheck-pass/*", "--repeat", "3")
        #expect(answer.output.contains("1..6\n"))
        #expect(answer.output.contains("ok 6 selfcheck-pass on shmem"))
        #expect(try SelftestProgram.run("--repeat", "0").exitCode == 64)
    }

    @Test func theReportGoesToAFileWhenAsked() throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID()).json")
        defer { try? FileManager.default.removeItem(at: file) }
        let answer = try SelftestProgram.run(
            "run", "--filter", "selfcheck-pass/*", "--format", "json", "--output", file.path)
        #expect(answer.output.isEmpty)
        let script = "import json, sys; print(json.load(sys.stdin)['totals']['pass'])"
        #expect(try SelftestProgram.python(script, input: try String(contentsOf: file, encoding: .utf8)) == "2")
        for format in ReportFormat.allCases {
            for (device, code) in [("/dev/null", 0), ("/dev/full", 74)] {
                let answer = try SelftestProgram.run(
                    "--filter", "selfcheck-pass/*", "--format", format.rawValue, "--output", device)
                #expect(answer.exitCode == Int32(code), "\(format) to \(device)")
            }
        }
        let refused = try SelftestProgram.run("--filter", "selfcheck-pass/*", "--output", "/nowhere/report")
        #expect(refused.exitCode == 74)
        #expect(refused.errors.contains("/nowhere/report cannot be written"))
    }

    @Test func listsAndProbesAreReadable() throws {
        let list = try SelftestProgram.run("list", "--format", "json")
        let keys = "import json, sys; print({tuple(sorted(case)) for case in json.load(sys.stdin)})"
        #expect(
            try SelftestProgram.python(keys, input: list.output)
                == "{('case', 'covers', 'limit', 'memory', 'requires', 'summary', 'tags')}")
        #expect(!list.output.contains("selfcheck-"), "the hidden cases stay hidden")
        let probe = try SelftestProgram.run("probe", "--format", "json")
        let usable = try SelftestProgram.python(
            "import json, sys; print(json.load(sys.stdin)['usable'])", input: probe.output)
        #expect(probe.exitCode == (usable == "True" ? 0 : 1))
    }

    @Test func aListForScriptsHasAResultALine() throws {
        let list = try SelftestProgram.run("list", "--filter", "minor/*", "--exclude", "*/tmpfs*", "--tag", "continue")
        #expect(
            list.output == "minor/shmem\nminor/shmem-private\nminor/hugetlb\nminor/hugetlb-private\n")
        #expect(try SelftestProgram.run("list", "--tag", "papyrus").errors.contains("has the tag 'papyrus'"))
        #expect(try SelftestProgram.run("list", "--exclude", "papyrus").exitCode == 64)
        #expect(try SelftestProgram.run("list", "--filter", "move", "--memory", "tmpfs").exitCode == 64)
    }

    @Test func aListForPeopleTellsWhatACaseCovers() throws {
        let list = try SelftestProgram.run("list", "--filter", "move/*", "--format", "pretty")
        #expect(list.output.contains("move on anon\n    MOVE resolves"))
        #expect(list.output.contains("    covers: MOVE keeps contents, dirty state and holes as they were\n"))
        #expect(list.output.contains("    tags: move since-6.8 upstream quick\n"))
    }

    @Test func theManualHasEveryOptionAndNoOther() throws {
        let page = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "../../docs/uffd-selftest.1")
        let manual = try String(contentsOf: page.standardized, encoding: .utf8)
        let described = Set(manual.matches(of: #/\n\.(?:It )?Fl -([a-z-]+)/#).map { String($0.output.1) })
        let script = """
            import json, sys
            commands = json.load(sys.stdin)["command"]["subcommands"]
            names = {name["name"] for command in commands if command["shouldDisplay"] and command["commandName"] != "help"
                     for argument in command["arguments"] for name in argument.get("names", [])
                     if name["kind"] == "long"}
            print(*sorted(names - {"help"}))
            """
        let help = try SelftestProgram.run("--experimental-dump-help").output
        let options = Set(try SelftestProgram.python(script, input: help).split(separator: " ").map(String.init))
        #expect(described == options)
    }

    @Test func whatFailedCanBeRunAgain() throws {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID()).json")
        defer { try? FileManager.default.removeItem(at: file) }
        _ = try SelftestProgram.run(
            "--filter", "selfcheck-[pf]a[is]*", "--format", "json", "--output", file.path)
        let again = try SelftestProgram.run("--rerun-failed", file.path)
        #expect(again.output.contains("1..1\n"))
        #expect(again.output.contains("not ok 1 selfcheck-fail"))
        try Data("{}".utf8).write(to: file)
        let refused = try SelftestProgram.run("--rerun-failed", file.path)
        #expect(refused.exitCode == 64)
        #expect(refused.errors.contains("is not a report"))
        _ = try SelftestProgram.run("--filter", "selfcheck-pass/*", "--format", "json", "--output", file.path)
        let gone = #"{"results": [{"case": "papyrus", "memory": "anon", "outcome": "fail"}, "#
        try Data((gone + #"{"case": "selfcheck-fail", "memory": null, "outcome": "fail"}]}"#).utf8).write(to: file)
        let note = "1 results failed earlier that this program does not have: papyrus/anon"
        #expect(try SelftestProgram.run("--rerun-failed", file.path).output.contains("# \(note)\n"))
        #expect(try SelftestProgram.run("list", "--rerun-failed", file.path).errors.contains(note))
        _ = try SelftestProgram.run("--filter", "selfcheck-pass/*", "--format", "json", "--output", file.path)
        for command in ["run", "list"] {
            let nothing = try SelftestProgram.run(command, "--rerun-failed", file.path)
            #expect(nothing.exitCode == 0 && nothing.output.isEmpty)
            #expect(nothing.errors.contains("nothing failed in \(file.path)"))
        }
    }

    @Test func aStoppedRunEndsByTheSignalAndReportsWhatItHas() throws {
        let script = """
            \(SelftestProgram.path) run --filter selfcheck-hang --timeout 60 & run=$!
            for _ in $(seq 300); do pgrep -f "run-case selfcheck-hang .*--runner $run" >/dev/null && break; sleep 0.1; done
            kill -INT $run; wait $run
            """
        let answer = try SelftestProgram.start("bash", ["-c", script])
        #expect(answer.exitCode == 130)
        #expect(answer.output.contains("Bail out! stopped by SIGINT"))
    }

    @Test(
        arguments: [
            ("--form", "--format"), ("--format ta", "tap"), ("run --form", "--format"),
            ("--fail-fast --out", "--output"),
            ("pro", "probe"), ("list --tag x --form", "--format"), ("--vers", "--version"),
        ])
    func bashCompletesOptionsOfTheDefaultCommand(line: String, word: String) throws {
        let script = """
            source <("$1" --generate-completion-script bash)
            read -ra COMP_WORDS <<<"uffd-selftest $2"; COMP_LINE="uffd-selftest $2"
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_POINT=${#COMP_LINE}
            _uffd-selftest uffd-selftest "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
            echo "${COMPREPLY[@]}"
            """
        let answer = try SelftestProgram.start("bash", ["-c", script, "bash", SelftestProgram.path, line])
        #expect(answer.output == "\(word)\n", "\(answer.errors)")
    }

    @Test(arguments: ["zsh", "fish"])
    func otherShellsHaveOptionsOfTheDefaultCommand(shell: String) throws {
        let script = try SelftestProgram.run("--generate-completion-script", shell).output
        #expect(script.components(separatedBy: "Stop at the first failure.").count == 3)
    }
}
