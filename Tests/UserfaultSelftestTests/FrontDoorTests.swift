import Foundation
import Testing

/// The script that stands in for the kernel's run_vmtests.sh, with a program in the selftest's place.
@Suite(.timeLimit(.minutes(1)))
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

    @Test func otherCategoriesAreSkipped() throws {
        let answer = try run(["-t", "mmap hugetlb"], codes: "")
        #expect(answer.output == "TAP version 13\n1..0 # SKIP no such category\n")
        #expect(answer.exitCode == 4)
    }
}
