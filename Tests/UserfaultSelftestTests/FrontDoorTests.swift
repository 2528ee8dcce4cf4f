import Foundation
import Testing

/// The script that stands in for the kernel's run_vmtests.sh, with a program in the selftest's place.
@Suite(.timeLimit(.minutes(5)))
struct FrontDoorTests {
    /// Runs the script with a program that ends as `codes` says, a shell `case` over its arguments.
    private func run(_ arguments: [String] = ["-t", "userfaultfd"], codes: String) throws -> SelftestProgram.Answer {
        let program = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID()).sh")
        try Data("#!/bin/sh\necho inner line\ncase \"$*\" in \(codes) *) exit 0;; esac\n".utf8).write(to: program)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: program.path)
        defer { try? FileManager.default.removeItem(at: program) }
        let script = URL(fileURLWithPath: #filePath)
            .appendingPathComponent("../../../Scripts/package/run_vmtests-compatible.sh").standardized.path
        return try SelftestProgram.start("env", ["UFFD_SELFTEST=\(program.path)", script] + arguments)
    }

    @Test func theSevenOuterTestsHaveUpstreamsNames() throws {
        let answer = try run(codes: "")
        let results = answer.output.split(separator: "\n").filter { $0.hasPrefix("ok ") }
        #expect(
            results == [
                "ok 1 uffd-unit-tests", "ok 2 uffd-stress anon 20 16", "ok 3 uffd-stress hugetlb 128 32",
                "ok 4 uffd-stress hugetlb-private 128 32", "ok 5 uffd-stress shmem 20 16",
                "ok 6 uffd-stress shmem-private 20 16", "ok 7 uffd-wp-mremap",
            ])
        #expect(answer.output.hasPrefix("TAP version 13\n"))
        #expect(answer.output.hasSuffix("# SUMMARY: PASS=7 SKIP=0 FAIL=0\n1..7\n"))
        #expect(answer.output.contains("# inner line\n"))
        #expect(answer.exitCode == 0)
    }

    @Test func aSkipAndAFailureAreKselftests() throws {
        let skipped = try run(codes: "*hugetlb*) exit 4;;")
        #expect(skipped.output.contains("ok 3 uffd-stress hugetlb 128 32 # SKIP\n"))
        #expect(skipped.exitCode == 4)
        let failed = try run(codes: "*hugetlb*) exit 4;; run*) exit 1;;")
        #expect(failed.output.contains("not ok 1 uffd-unit-tests # exit=1\n"))
        #expect(failed.exitCode == 1)
    }

    /// Packs a program that ends as `codes` says, unpacks it, and runs its `run_kselftest.sh`.
    private func kselftest(_ arguments: String, codes: String) throws -> SelftestProgram.Answer {
        let packer = URL(fileURLWithPath: #filePath)
            .appendingPathComponent("../../../Scripts/package/package-kselftest.sh").standardized.path
        let script = """
            set -e; cd $(mktemp -d); trap 'rm -rf "$PWD"' EXIT
            printf '#!/bin/sh\\necho inner line\\ncase "$*" in \(codes) *) exit 0;; esac\\n' >program; chmod 755 program
            UFFD_SELFTEST=$PWD/program \(packer) package.tar.gz 2>/dev/null; tar -xzf package.tar.gz
            kselftest/run_kselftest.sh \(arguments)
            """
        return try SelftestProgram.start("bash", ["-c", script])
    }

    private let installed = [
        "uffd-unit-tests", "uffd-stress-anon", "uffd-stress-shmem", "uffd-stress-shmem-private", "uffd-stress-hugetlb",
        "uffd-stress-hugetlb-private",
    ]

    @Test func theInstalledKselftestListsItsTests() throws {
        let list = try kselftest("-l", codes: "")
        #expect(list.output == installed.map { "userfaultfd:\($0)\n" }.joined())
        #expect(try kselftest("-t userfaultfd:papyrus", codes: "").exitCode == 64)
    }

    @Test func theInstalledKselftestReportsAsTheKernels() throws {
        let answer = try kselftest(
            "-c userfaultfd -o 1", codes: "*shmem-*) exit 4;; *anon*) exit 3;; *shmem*) sleep 60;;")
        let results = answer.output.split(separator: "\n").filter { !$0.hasPrefix("#") }
        #expect(
            results == [
                "TAP version 13", "1..6", "ok 1 selftests: userfaultfd: uffd-unit-tests",
                "not ok 2 selftests: userfaultfd: uffd-stress-anon # exit=3",
                "not ok 3 selftests: userfaultfd: uffd-stress-shmem # TIMEOUT 1 seconds",
                "ok 4 selftests: userfaultfd: uffd-stress-shmem-private # SKIP",
                "ok 5 selftests: userfaultfd: uffd-stress-hugetlb",
                "ok 6 selftests: userfaultfd: uffd-stress-hugetlb-private",
            ])
        #expect(answer.output.contains("# selftests: userfaultfd: uffd-unit-tests\n# inner line\n"))
        #expect(answer.exitCode == 1)
        let chosen = try kselftest("-t userfaultfd:uffd-stress-anon -f -s", codes: "*anon*) exit 3;;")
        #expect(chosen.exitCode == 0)
        #expect(!chosen.output.contains("inner line"))
    }

    @Test func otherCategoriesAreSkipped() throws {
        let answer = try run(["-t", "mmap hugetlb"], codes: "")
        #expect(answer.output == "TAP version 13\n1..0 # SKIP no such category\n")
        #expect(answer.exitCode == 4)
    }
}
