import Foundation
import Testing

/// The host's settings during and after runs; they need root, and change the machine for a moment.
@Suite(.serialized, .timeLimit(.minutes(2)), .enabled(if: geteuid() == 0, "changing the host needs root"))
struct HostChangesTests {
    /// Everything that a run may change.
    private static func state() -> [String: String] {
        let files = [
            "/proc/sys/vm/nr_hugepages", "/proc/sys/vm/unprivileged_userfaultfd", "/proc/swaps", "/proc/mounts",
            "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
        ]
        var state = Dictionary(
            uniqueKeysWithValues: files.map { ($0, (try? String(contentsOfFile: $0, encoding: .utf8)) ?? "") })
        for directory in ["/sys/block", "/sys/fs/cgroup/memory", "/sys/fs/cgroup", "/var/tmp"] {
            let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
            state[directory] = names.sorted().joined(separator: " ")
        }
        return state
    }

    @Test func whatCasesRequireIsProvidedAndTakenBack() throws {
        let before = Self.state()
        let answer = try SelftestProgram.run("run", "--filter", "selfcheck-host-[pr]*")
        #expect(answer.exitCode == 0, "\(answer.output)")
        #expect(Self.state() == before)
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
        #expect(Self.state() == before)
    }

    @Test func aSecondRunWaitsForTheFirst() throws {
        let script = """
            \(SelftestProgram.path) run --filter selfcheck-host-hold >/dev/null & run=$!
            for _ in $(seq 300); do pgrep -f "run-case selfcheck-host-hold .*--runner $run" >/dev/null && break; sleep 0.1; done
            \(SelftestProgram.path) run --filter selfcheck-host-restored --filter selfcheck-host-provided > second & second=$!
            for _ in $(seq 100); do grep -q waiting second && break; sleep 0.1; done
            cat second; echo; kill -KILL $run; wait $second; echo "second: $?"; rm second
            """
        let answer = try SelftestProgram.start("bash", ["-c", "cd $(mktemp -d); " + script])
        #expect(answer.output.contains("# waiting for another uffd-selftest run"))
        #expect(answer.output.contains("second: 0"))
    }
}
