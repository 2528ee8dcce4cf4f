import Glibc

/// What a reader of a report wants to know of the host, read from the kernel's files; what is not there is left out.
package struct HostFact: Sendable, Equatable {
    package let name: String
    package let value: String
}

enum HostFacts {
    static func all() -> [HostFact] {
        let facts: [(String, String?)] = [
            ("kernel_version", ProcFile.line("/proc/version")),
            ("command_line", ProcFile.line("/proc/cmdline")),
            ("config", config),
            ("taint", ProcFile.line("/proc/sys/kernel/tainted")),
            ("processors", "\(sysconf(Int32(_SC_NPROCESSORS_ONLN)))"),
            ("memory_kib", number("MemTotal")),
            ("swap_kib", number("SwapTotal")),
            ("page_size", "\(getpagesize())"),
            ("huge_page_kib", number("Hugepagesize")),
            ("huge_pages", number("HugePages_Total")),
            ("transparent_huge_pages", ProcFile.line(SystemSetting.transparentHugePages.path)),
            ("shmem_huge_pages", ProcFile.line(SystemSetting.shmemHugePages.path)),
            ("ksm", ProcFile.line(SystemSetting.sharedPageMerging.path)),
            ("unprivileged_userfaultfd", ProcFile.line(SystemSetting.unprivilegedUserfaultfd.path)),
            ("user", "\(geteuid())"),
            ("limits", limits),
        ]
        return facts.compactMap { name, value in value.map { HostFact(name: name, value: $0) } }
    }

    private static func number(_ name: String) -> String? {
        ProcFile.number(name, in: "/proc/meminfo").map { "\($0)" }
    }

    /// The soft limits that make cases skip, as `ulimit` names their options.
    private static var limits: String? {
        let names = [
            "Max open files": "n", "Max processes": "u", "Max locked memory": "l", "Max address space": "v",
            "Max stack size": "s", "Max core file size": "c",
        ]
        guard let lines = ProcFile.text("/proc/self/limits")?.split(separator: "\n") else { return nil }
        return lines.compactMap { line in
            guard let (name, option) = names.first(where: { line.hasPrefix($0.key) }) else { return nil }
            return line.dropFirst(name.count).split(separator: " ").first.map { "-\(option) \($0)" }
        }.sorted().joined(separator: " ")
    }

    // MARK: The kernel's configuration

    private static let options: Set<Substring> = [
        "USERFAULTFD", "HAVE_ARCH_USERFAULTFD_WP", "HAVE_ARCH_USERFAULTFD_MINOR", "PTE_MARKER_UFFD_WP",
        "TRANSPARENT_HUGEPAGE", "SHMEM", "TMPFS", "HUGETLBFS", "HUGETLB_PMD_PAGE_TABLE_SHARING", "MEMCG", "SWAP",
        "ZSWAP", "ZRAM", "KSM", "MEM_SOFT_DIRTY", "PROC_PAGE_MONITOR", "CHECKPOINT_RESTORE", "MEMORY_FAILURE",
        "MIGRATION", "COMPACTION", "NUMA", "PER_VMA_LOCK", "GUP_TEST", "DEBUG_VM", "DEBUG_KMEMLEAK", "KASAN", "KCSAN",
        "PROVE_LOCKING", "PREEMPT_RT", "PREEMPT", "PREEMPT_VOLUNTARY",
    ]

    /// What is set of the options that matter to userfaultfd.
    private static var config: String? {
        let name = KernelRelease.name
        let places = ["/boot/config-\(name)", "/lib/modules/\(name)/config", "/usr/lib/modules/\(name)/config"]
        let text = places.lazy.compactMap(ProcFile.text).first ?? unpacked("/proc/config.gz")
        return text.map(choice(of:))
    }

    static func choice(of config: String) -> String {
        config.split(separator: "\n").filter { line in
            line.hasPrefix("CONFIG_") && options.contains(line.dropFirst("CONFIG_".count).prefix { $0 != "=" })
        }.map { $0.dropFirst("CONFIG_".count) }.joined(separator: " ")
    }

    /// The text in a file that gzip has packed, if there is a gzip to unpack it.
    private static func unpacked(_ path: String) -> String? {
        guard access(path, R_OK) == 0, let stream = popen("exec gzip -dc \(path) 2>&-", "r") else { return nil }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = fread(&chunk, 1, chunk.count, stream)
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return pclose(stream) == 0 ? String(decoding: bytes, as: UTF8.self) : nil
    }
}
