import Foundation
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultSelftest

/// The host's settings during and after runs; they need root, and change the machine for a moment.
@Suite(.serialized, .timeLimit(.minutes(5)), .enabled(if: geteuid() == 0, "changing the host needs root"))
struct HostChangesTests {
    /// Everything that a run may change, one line each, so that a difference is readable.
    private static func state() -> Set<String> {
        let files = [
            "/proc/sys/vm/nr_hugepages", "/proc/sys/vm/unprivileged_userfaultfd", "/proc/swaps",
            "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
        ]
        let contents = files.map { file in
            // The sizes in /proc/swaps change with the host's load; which areas there are does not.
            let text = (try? String(contentsOfFile: file, encoding: .utf8)) ?? "absent"
            let lines = text.split(separator: "\n").compactMap {
                file == "/proc/swaps" ? $0.split(separator: " ").first : $0
            }
            return "\(file): \(lines.joined(separator: ", "))"
        }
        let directories = ["/sys/block", "/sys/fs/cgroup/memory", "/sys/fs/cgroup", "/var/tmp", "/run"]
        let names = directories.flatMap { directory in
            ((try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? [])
                .filter { $0.hasPrefix("zram") || $0.hasPrefix("uffd-selftest-") }.map { "\(directory)/\($0)" }
        }
        return Set(contents + names)
    }

    @Test func whatCasesRequireIsProvidedAndTakenBack() throws {
        let before = Self.state()
        let answer = try SelftestProgram.run("run", "--filter", "selfcheck-host-[pr]*")
        #expect(answer.exitCode == 0, "\(answer.output)")
        #expect(Self.state().symmetricDifference(before).isEmpty)
    }

    @Test func withoutSystemChangesTheCasesAreSkipped() throws {
        let answer = try SelftestProgram.run("run", "--filter", "selfcheck-host-provided", "--no-system-changes")
        #expect(answer.exitCode == 4)
        #expect(answer.output.contains("system changes are not allowed"))
    }

    @Test(arguments: ["KILL", "TERM", "INT"])
    func aRunThatIsKilledLeavesNothingBehind(signal: String) throws {
        let before = Self.state()
        // The run is killed once its case holds everything, which the memory group shows as the last of it.
        let script = """
            \(SelftestProgram.path) run --filter selfcheck-host-hold & run=$!
            for _ in $(seq 300); do
                child=$(pgrep -f "run-case selfcheck-host-hold .*--runner $run") && break; sleep 0.1
            done
            cat /proc/sys/vm/unprivileged_userfaultfd; kill -\(signal) $run; wait $run
            for _ in $(seq 100); do kill -0 $child 2>/dev/null || break; sleep 0.1; done; echo "child ${child:-none}"
            """
        let answer = try SelftestProgram.start("bash", ["-c", script])
        #expect(answer.output.contains("1\n"), "the setting was held")
        #expect(!answer.output.contains("child none"))
        let deadline = ContinuousClock.now + .seconds(20)
        while Self.state() != before, ContinuousClock.now < deadline { usleep(50_000) }
        #expect(Self.state().symmetricDifference(before).isEmpty)
    }

    @Test func aRunThatWaitsForAnotherCanBeStopped() throws {
        let script = """
            exec 8</proc/sys/vm; flock 8
            \(SelftestProgram.path) run --filter selfcheck-host-provided > waiting 8<&- & run=$!
            for _ in $(seq 300); do grep -q "waiting for another" waiting && break; sleep 0.1; done
            kill -INT $run; wait $run; echo "run: $?"; cat waiting
            """
        let answer = try SelftestProgram.start("bash", ["-c", "cd $(mktemp -d); " + script])
        #expect(answer.output.contains("run: 130"))
        #expect(answer.output.contains("Bail out! stopped by SIGINT"))
    }

    @Test func aWaitForTheLockEndsAndIsNotRepeated() {
        let (first, second) = (RunLock(), RunLock())
        #expect(first.take(within: .zero, unless: nil) { _ in } == nil)
        var waits = 0
        let refusal = second.take(within: .milliseconds(1200), unless: nil) { _ in waits += 1 }
        let holder = "another uffd-selftest run, process \(getpid()) ("
        #expect(refusal?.hasPrefix(holder) == true && refusal?.hasSuffix(" for all 1 seconds of waiting") == true)
        #expect(second.take(within: .seconds(100), unless: nil) { _ in waits += 1 } == refusal)
        #expect(waits == 1)
        first.release()
        #expect(second.take(within: .zero, unless: nil) { _ in } == nil)
    }

    @Test func whatCannotBeUndoneIsLeftToALaterRun() {
        var remains = HostChanges.Journal()
        remains.undoings = [.unlink("/proc/version"), .removeZram("none")]
        var kept = HostChanges.Journal()
        var changes = HostChanges { kept = $0 }
        let notes = changes.undoRemains(remains)
        #expect(notes.count == 2 && notes[1].hasPrefix("/proc/version is still there"), "\(notes)")
        #expect(kept.undoings == [.unlink("/proc/version")])
        #expect(changes.undoAll().count == 1)
        #expect(kept.undoings == [.unlink("/proc/version")])
    }

    @Test func aSettingIsUnknownWhileItIsWritten() throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID())").path
        defer { unlink(path) }
        try Data("1".utf8).write(to: URL(fileURLWithPath: path))
        var kept: [HostChanges.Journal] = []
        var changes = HostChanges { kept.append($0) }
        for value in ["2", "3"] {
            kept = []
            guard case .done = changes.make(.set(path: path, value: value)) else {
                Issue.record("it cannot be set to \(value)")
                return
            }
            #expect(kept.count >= 2 && kept[kept.count - 2].values[path] == nil && kept.last?.values[path] == value)
        }
        kept = []
        _ = changes.make(.restore(path: path))
        #expect(kept.first?.undoings == [.write("1", to: path)] && kept.first?.values[path] == nil)
        #expect(kept.last?.undoings.isEmpty == true)
    }

    @Test func theJournalOfThisBootIsReadFromAFileOfRootsOwn() throws {
        let path = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID())").path
        defer { for name in [path, path + ".link"] { try? FileManager.default.removeItem(atPath: name) } }
        var journal = HostChanges.Journal()
        journal.undoings = [.write("0", to: "/proc/sys/vm/nr_hugepages"), .unlink("/var/tmp/swap")]
        journal.values = ["/proc/sys/vm/nr_hugepages": "32"]
        let file = try #require(RunFile(path))
        #expect(file.journal == nil)
        file.keep(journal)
        #expect(RunFile(path)?.journal == journal)
        journal.undoings.removeLast()
        file.keep(journal)
        #expect(RunFile(path)?.journal == journal)
        journal.boot = "another"
        file.keep(journal)
        #expect(RunFile(path)?.journal == nil)
        file.keep(HostChanges.Journal())
        #expect(try Data(contentsOf: URL(filePath: path)).isEmpty)
        try FileManager.default.linkItem(atPath: path, toPath: path + ".link")
        #expect(RunFile(path) == nil, "it has another name")
        try FileManager.default.removeItem(atPath: path + ".link")
        try FileManager.default.createSymbolicLink(atPath: path + ".link", withDestinationPath: path)
        #expect(RunFile(path + ".link") == nil, "it is a link")
        try FileManager.default.setAttributes([.posixPermissions: 0o620], ofItemAtPath: path)
        #expect(RunFile(path) == nil, "others may write it")
    }

    @Test func theListOfBrokenPagesIsNoLinkOfAnotherUser() throws {
        #expect(BrokenPages.list(ofProcess: 1).hasPrefix("/run/"))
        let target = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID())").path
        let list = target + ".broken"
        defer { for name in [target, list] { unlink(name) } }
        try FileManager.default.createSymbolicLink(atPath: list, withDestinationPath: target)
        #expect(BrokenPages.make(list) == .tooManySymbolicLinkLevels)
        let page = try Mapping(anonymous: PageSize.base.bytes)
        setenv(BrokenPages.variable, list, 1)
        defer { unsetenv(BrokenPages.variable) }
        #expect(throws: Errno.tooManySymbolicLinkLevels) { try BrokenPages.note(page.range) }
        unlink(list)
        #expect(BrokenPages.make(list) == nil)
        try BrokenPages.note(page.range)
        let text = try String(contentsOfFile: list, encoding: .utf8)
        #expect(text.split(separator: "\n").count == 1, "\(text)")
        #expect(access(target, F_OK) != 0)
    }

    @Test func aSecondRunWaitsForTheFirst() throws {
        let script = """
            \(SelftestProgram.path) run --filter selfcheck-host-hold >/dev/null & run=$!
            for _ in $(seq 300); do pgrep -f "run-case selfcheck-host-hold .*--runner $run" >/dev/null && break; sleep 0.1; done
            \(SelftestProgram.path) run --filter selfcheck-host-restored --filter selfcheck-host-provided > second & second=$!
            for _ in $(seq 300); do grep -q waiting second && break; sleep 0.1; done
            cat second; echo; kill -KILL $run; wait $second; echo "second: $?"; rm second
            """
        let answer = try SelftestProgram.start("bash", ["-c", "cd $(mktemp -d); " + script])
        #expect(answer.output.contains("# waiting for another uffd-selftest run"))
        #expect(answer.output.contains("second: 0"))
    }
}
