import Glibc
import SystemPackage

extension SystemSetting {
    /// The value now; of a list such as `always [madvise] never` the chosen one.
    var current: String? {
        guard let line = ProcFile.line(path) else { return nil }
        guard let open = line.firstIndex(of: "["), let close = line.firstIndex(of: "]") else { return line }
        return String(line[line.index(after: open)..<close])
    }
}

/// The pool of huge pages of the default size.
enum HugePagePool {
    /// The setting: how many pages there are.
    static let path = "/proc/sys/vm/nr_hugepages"

    static var total: Int { ProcFile.number("HugePages_Total", in: "/proc/meminfo") ?? 0 }

    /// Pages that nobody uses and nobody has reserved.
    static var free: Int {
        let count = { ProcFile.number($0, in: "/proc/meminfo") ?? 0 }
        return max(0, count("HugePages_Free") - count("HugePages_Rsvd"))
    }

    /// How many pages are free and how many are reserved at one moment.
    struct Counts: Equatable {
        let free = ProcFile.number("HugePages_Free", in: "/proc/meminfo") ?? 0
        let reserved = ProcFile.number("HugePages_Rsvd", in: "/proc/meminfo") ?? 0
    }

    /// How often the pool is asked to grow for one result.
    private static let mostAttempts = 8

    /// Makes the pool so large that `free` pages are free.
    ///
    /// Another program may take a page at any moment, so what is missing is counted again after each change.
    ///
    /// - Parameters:
    ///   - counts: How many pages there are and how many are free; nil if that cannot be read.
    ///   - resize: Sets how many pages there are; returns why it cannot.
    ///   - compact: Brings free memory together.
    /// - Returns: Why fewer are free; nil on success.
    static func grow(
        free needed: Int, counts: () -> (total: Int, free: Int)?, resize: (Int) -> String?, compact: () -> Void
    ) -> String? {
        var free = 0
        for attempt in 0..<mostAttempts {
            guard let before = counts() else { return "the pool of huge pages cannot be read" }
            guard before.free < needed else { return nil }
            // The pool may not have grown because memory is too scattered.
            if attempt > 0 { compact() }
            if let reason = resize(before.total + needed - before.free) { return reason }
            guard let after = counts() else { return "the pool of huge pages cannot be read" }
            free = after.free
            // Compacting did not help either: there is no memory.
            if attempt > 0, free < needed, after.total <= before.total { break }
        }
        return free >= needed ? nil : "only \(free) of \(needed) huge pages could be had: free some memory"
    }
}

/// The swap areas in use.
enum SwapSpace {
    /// The environment variable with the path of what a case may turn off.
    static let variable = "UFFD_SELFTEST_OWN_SWAP"

    /// Swap space of the host that whoever started the run lets it turn off and on again.
    static var lent: String? {
        guard let path = getenv("UFFD_SELFTEST_SWAP").map({ String(cString: $0) }) else { return nil }
        return paths.contains(path[...]) ? path : nil
    }

    static var paths: [Substring] {
        (ProcFile.text("/proc/swaps") ?? "").split(separator: "\n").dropFirst().compactMap {
            $0.split { $0 == " " || $0 == "\t" }.first
        }
    }
}

/// The kernel's format of a swap area: version, size and magic in the first page.
enum SwapHeader {
    static func write(to file: FileDescriptor, size: Int) throws {
        let pageSize = Int(getpagesize())
        var page = [UInt8](repeating: 0, count: pageSize)
        page.withUnsafeMutableBytes { bytes in
            bytes.storeBytes(of: 1, toByteOffset: 1024, as: UInt32.self)
            bytes.storeBytes(of: UInt32(size / pageSize - 1), toByteOffset: 1028, as: UInt32.self)
            bytes[(pageSize - 10)...].copyBytes(from: "SWAPSPACE2".utf8)
        }
        try file.writeAll(toAbsoluteOffset: 0, page)
    }
}

/// Where memory control groups are, of either version.
enum MemoryGroups {
    /// The variable that tells the process of a result where its group is.
    static let variable = "UFFD_SELFTEST_MEMORY_GROUP"

    /// A directory in which a group with a memory limit can be made.
    static func parent() -> String? {
        for mount in (ProcFile.text("/proc/self/mounts") ?? "").split(separator: "\n") {
            let fields = mount.split(separator: " ")
            guard fields.count > 3 else { continue }
            let directory = String(fields[1])
            if fields[2] == "cgroup", fields[3].split(separator: ",").contains("memory") { return directory }
            if fields[2] == "cgroup2", lists("memory", "\(directory)/cgroup.subtree_control") { return directory }
        }
        return nil
    }

    /// Moves this process into the group and limits it.
    static func join(_ group: String, limit bytes: Int) throws(Errno) {
        let limitFile = ["memory.max", "memory.limit_in_bytes"].first { access("\(group)/\($0)", F_OK) == 0 }
        guard let limitFile else { throw Errno.noSuchFileOrDirectory }
        if let error = ProcFile.write("\(bytes)", to: "\(group)/\(limitFile)") { throw error }
        if let error = ProcFile.write("\(getpid())", to: "\(group)/cgroup.procs") { throw error }
    }

    /// Ends what is in the group and removes it.
    ///
    /// A group cannot be removed while a process in it is still ending.
    static func remove(_ group: String) {
        let deadline = ContinuousClock.now + .seconds(5)
        while rmdir(group) != 0, errno == EBUSY, ContinuousClock.now < deadline {
            for pid in (ProcFile.text("\(group)/cgroup.procs") ?? "").split(separator: "\n").compactMap({ Int32($0) }) {
                kill(pid, SIGKILL)
            }
            poll(nil, 0, 5)
        }
    }

    private static func lists(_ word: Substring, _ path: String) -> Bool {
        ProcFile.line(path)?.split(separator: " ").contains(word) ?? false
    }
}
