/// What a feature means, and since when kernels have it.
package enum FeatureProbe {
    private static let known: [UserfaultFD.Features: (meaning: String, since: String)] = [
        .writeProtect: ("Write protection on anonymous memory", "5.7"),
        .eventFork: ("Events of forks", "4.11"),
        .eventRemap: ("Events of mremap", "4.11"),
        .eventRemove: ("Events of madvise that drops pages", "4.11"),
        .missingHugetlbfs: ("Missing faults on hugetlbfs", "4.11"),
        .missingShmem: ("Missing faults on shared memory", "4.11"),
        .eventUnmap: ("Events of munmap", "4.11"),
        .sigbus: ("SIGBUS in place of messages", "4.14"),
        .threadID: ("Thread ids in page faults", "4.14"),
        .minorHugetlbfs: ("Minor faults on hugetlbfs", "5.13"),
        .minorShmem: ("Minor faults on shared memory", "5.14"),
        .exactAddress: ("Exact addresses in page faults", "5.18"),
        .writeProtectHugetlbfsShmem: ("Write protection on hugetlbfs and shared memory", "5.19"),
        .writeProtectUnpopulated: ("Write protection of anonymous pages that are not there", "6.4"),
        .poison: ("UFFDIO_POISON", "6.6"),
        .writeProtectAsync: ("Write-protect faults that resolve themselves", "6.7"),
        .move: ("UFFDIO_MOVE", "6.8"),
        .readWriteProtect: ("Read-write protection", "7.3"),
        .readWriteProtectAsync: ("Read-write-protect faults that resolve themselves", "7.3"),
    ]

    /// The first kernel series that has a feature, such as `6.8`; nil for a feature that this library does not know.
    package static func firstKernel(with feature: UserfaultFD.Features) -> String? { known[feature]?.since }

    static func check(
        _ feature: UserfaultFD.Features, name: String, features: UserfaultFD.Features, isUsable: Bool
    ) -> KernelSupport.Check {
        let checkName = KernelSupport.Name.feature(feature)
        let (meaning, since) = known[feature] ?? (name, "")
        if features.contains(feature) { return .yes(checkName, meaning) }
        guard isUsable else {
            return .no(
                checkName, meaning, reason: "no userfaultfd can be opened, so the kernel cannot be asked",
                remedy: "see user-mode-faults")
        }
        return .no(
            checkName, meaning, reason: "the kernel does not offer UFFD_FEATURE_\(name)",
            remedy: "use Linux \(since) or later, on an architecture and with a configuration that has it")
    }
}
