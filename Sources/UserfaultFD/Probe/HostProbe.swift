internal import CUserfaultFD
internal import SystemPackage

/// What the host has around userfaultfd: huge pages, swap, and the windows that tests look through.
enum HostProbe {
    static func checks() -> [KernelSupport.Check] {
        [
            unprivileged(), hugePages(), transparentHugePages(), swap(), pagemapScan(), frameNumbers(), memoryFailure(),
            guestMemfd(),
        ]
    }

    private static func unprivileged() -> KernelSupport.Check {
        let name = KernelSupport.Name.unprivilegedKernelModeFaults
        let meaning = "Ordinary users may handle kernel-mode faults through userfaultfd(2)"
        guard let text = ProcFile.text("/proc/sys/vm/unprivileged_userfaultfd") else {
            return .no(
                name, meaning, reason: "/proc/sys/vm/unprivileged_userfaultfd cannot be read",
                remedy: readableRemedy + ", or use a kernel with CONFIG_USERFAULTFD")
        }
        guard text.hasPrefix("1") else {
            return .no(
                name, meaning, reason: "vm.unprivileged_userfaultfd is 0",
                remedy: "sysctl vm.unprivileged_userfaultfd=1, or give users access to /dev/userfaultfd")
        }
        return .yes(name, meaning)
    }

    private static let readableRemedy = "mount /proc, and free descriptors"

    /// A file that cannot be read says nothing about the kernel.
    private static func unreadable(
        _ name: KernelSupport.Name, _ meaning: String, _ path: String
    ) -> KernelSupport.Check {
        .no(name, meaning, reason: "\(path) cannot be read", remedy: readableRemedy)
    }

    private static func hugePages() -> KernelSupport.Check {
        let name = KernelSupport.Name.hugePages
        let meaning = "The huge page pool has free pages"
        guard let information = ProcFile.text("/proc/meminfo") else {
            return unreadable(name, meaning, "/proc/meminfo")
        }
        guard let free = ProcFile.value(of: "HugePages_Free:", in: information).flatMap({ Int($0) }) else {
            return .no(
                name, meaning, reason: "the kernel has no hugetlbfs", remedy: "use a kernel with CONFIG_HUGETLBFS")
        }
        guard free > 0 else {
            return .no(name, meaning, reason: "HugePages_Free is 0", remedy: "sysctl vm.nr_hugepages=64")
        }
        return .yes(name, meaning)
    }

    private static func transparentHugePages() -> KernelSupport.Check {
        let name = KernelSupport.Name.transparentHugePages
        let meaning = "Anonymous memory can be given transparent huge pages"
        guard let text = ProcFile.text("/sys/kernel/mm/transparent_hugepage/enabled") else {
            return .no(
                name, meaning, reason: "the kernel has none, or /sys is not mounted",
                remedy: "use a kernel with CONFIG_TRANSPARENT_HUGEPAGE, and mount /sys")
        }
        guard !text.contains("[never]") else {
            return .no(
                name, meaning, reason: "they are set to never",
                remedy: "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled")
        }
        return .yes(name, meaning)
    }

    private static func swap() -> KernelSupport.Check {
        let name = KernelSupport.Name.swap
        let meaning = "Pages can be swapped out"
        guard let swaps = ProcFile.text("/proc/swaps") else { return unreadable(name, meaning, "/proc/swaps") }
        let lines = swaps.split(separator: "\n")
        guard lines.count > 1 else {
            return .no(name, meaning, reason: "no swap is in use", remedy: "swapon a file or a zram device")
        }
        return .yes(name, meaning)
    }

    private static func pagemapScan() -> KernelSupport.Check {
        let name = KernelSupport.Name.pagemapScan
        let meaning = "PAGEMAP_SCAN finds written pages"
        do throws(UserfaultError) {
            try PagemapScan().probe()
            return .yes(name, meaning)
        } catch {
            return .no(
                name, meaning, reason: error.description,
                remedy: error.reason == .unsupported ? "use Linux 6.7 or later" : readableRemedy)
        }
    }

    private static func frameNumbers() -> KernelSupport.Check {
        let name = KernelSupport.Name.pageFrameNumbers
        let meaning = "/proc/self/pagemap shows page frame numbers"
        guard Capability.sysAdmin.isEffective else {
            return .no(name, meaning, reason: "they are hidden without CAP_SYS_ADMIN", remedy: "run as root")
        }
        guard (try? PagemapScan()) != nil else { return unreadable(name, meaning, "/proc/self/pagemap") }
        return .yes(name, meaning)
    }

    private static func memoryFailure() -> KernelSupport.Check {
        let name = KernelSupport.Name.memoryFailureHandling
        let meaning = "A poisoned page's SIGBUS has the code BUS_MCEERR_AR; without it BUS_ADRERR"
        guard ProcFile.text("/proc/sys/vm/memory_failure_early_kill") != nil else {
            return .no(
                name, meaning, reason: "the kernel lacks CONFIG_MEMORY_FAILURE",
                remedy: "use a kernel with CONFIG_MEMORY_FAILURE")
        }
        return .yes(name, meaning)
    }

    /// Asked by registering one, as no version tells: kernels bring it with KVM, and configurations leave it out.
    private static func guestMemfd() -> KernelSupport.Check {
        let name = KernelSupport.Name.guestMemfdMinorFaults
        let meaning = "Minor faults of guest_memfd are handled: memory of virtual machines that only KVM maps"
        func no(_ reason: String, _ remedy: String) -> KernelSupport.Check {
            .no(name, meaning, reason: reason, remedy: remedy)
        }
        let answer = cuffd_guest_memfd(UInt64(PageSize.base.bytes))
        guard answer >= 0 else {
            return no(
                "no guest_memfd that can be mapped: \(Errno(rawValue: -answer))",
                "use Linux 6.18 or later with access to /dev/kvm")
        }
        let file = OwnedDescriptor(adopting: answer)
        do throws(UserfaultError) {
            let memory = try Mapping(file: FileDescriptor(rawValue: file.rawValue), count: PageSize.base.bytes)
            try UserfaultFD().register(memory.range, modes: .minor)
            return .yes(name, meaning)
        } catch {
            return no("registering one answered \(error.errno)", "use a kernel whose guest_memfd has minor faults")
        }
    }
}
