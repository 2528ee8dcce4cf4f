/// docs/selftest-coverage.md, made of the cases.
enum CoveragePage {
    static func text(of cases: [SelftestCase]) -> String {
        let behaviours = Coverage.allCases.filter { $0 != .upstream }
        return """
            # What the selftest covers

            Behaviours that a kernel can get wrong, and the cases that notice it. `uffd-selftest list --format coverage` prints
            this page; a test compares the two.

            ## The kernel's own unit tests

            Each of the 114 results of `uffd-unit-tests` in Linux 7.3 is a result here, under the same name; a test compares the lists
            (`Tests/UserfaultSelftestTests/Resources/upstream-results.txt`). Each is at least as strict, and does what its name says:
            `shmem-private` is mapped `MAP_PRIVATE`, and `minor-wp` checks that pages are protected.

            What the 119 results of `pagemap_ioctl` check is checked here by cases of other names, `scan-*` and a few more
            (`Tests/UserfaultSelftestTests/Resources/pagemap-results.txt`).

            ## Bugs that kernels had

            [Before and after](kernel-regressions.md): which results fail on a kernel before a fix, and pass on one after it.

            ## UFFDIO_CONTINUE on shared memory

            \(table(of: behaviours.filter(\.isContinue), cases))

            ## What the kernel's own tests do not cover

            \(table(of: behaviours.filter { !$0.isContinue }, cases))

            """
    }

    private static func table(of behaviours: [Coverage], _ cases: [SelftestCase]) -> String {
        let rows = behaviours.map { behaviour in
            let names = cases.filter { $0.covers.contains(behaviour) }.map { "`\($0.name)`" }
            return "| \(behaviour.rawValue) | \(names.joined(separator: ", ")) |"
        }
        return (["| behaviour | cases |", "|---|---|"] + rows).joined(separator: "\n")
    }
}
