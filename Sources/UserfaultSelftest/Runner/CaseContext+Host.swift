import CSelftestSupport
import Glibc
package import SystemPackage
import UserfaultFD

extension CaseContext {
    /// Moves this process into the memory control group that `.memoryGroup` provides, and limits it.
    ///
    /// - Parameter bytes: What the group may use, its page cache on tmpfs included.
    package func joinMemoryGroup(limit bytes: Int) throws {
        guard let group = getenv(MemoryGroups.variable) else {
            throw CaseSkip("the runner has made no memory control group")
        }
        try MemoryGroups.join(String(cString: group), limit: bytes)
    }

    /// Has the kernel reclaim memory of the group that this process has joined, and swap none of it out.
    package func reclaimMemoryGroup(_ bytes: Int) throws {
        guard let group = getenv(MemoryGroups.variable).map({ String(cString: $0) }),
            access("\(group)/memory.max", F_OK) == 0
        else { throw CaseSkip("no control groups of version 2 limit memory here") }
        guard access("\(group)/memory.reclaim", F_OK) == 0 else {
            throw CaseSkip(kernel: "this kernel has no memory.reclaim (Linux 5.19)")
        }
        _ = ProcFile.write("0", to: "\(group)/memory.swap.max")
        // EAGAIN says that less was to be had.
        _ = ProcFile.write("\(bytes)", to: "\(group)/memory.reclaim")
    }

    /// Lets the group that this process has joined have so many bytes more and nothing beyond, while a call runs.
    ///
    /// A call of the kernel that needs more then fails with ENOMEM: nobody in the group may be killed for it.
    package func withShortMemory<Answer>(bytes: Int, _ call: () throws -> Answer) throws -> Answer {
        guard let group = getenv(MemoryGroups.variable).map({ String(cString: $0) }),
            let current = ProcFile.line("\(group)/memory.current").flatMap({ Int($0) }),
            let limit = try? FileDescriptor.open(FilePath("\(group)/memory.max"), .writeOnly, options: .closeOnExec)
        else { throw CaseSkip("no control groups of version 2 limit memory here") }
        if let error = ProcFile.write("-1000", to: "/proc/self/oom_score_adj") {
            throw CaseSkip("this process may not be kept from being killed for want of memory: \(error)")
        }
        _ = ProcFile.write("0", to: "\(group)/memory.swap.max")
        // What is written is made before, because making it takes memory.
        let (tight, loose) = (Array("\(current + bytes)".utf8), Array("max".utf8))
        return try limit.closeAfter {
            _ = try limit.writeAll(tight)
            let answer = Result { try call() }
            _ = try limit.writeAll(toAbsoluteOffset: 0, loose)
            return try answer.get()
        }
    }

    /// Turns off the swap space that `.ownSwap` provides: the kernel brings back every page that is there.
    package func turnSwapOff() throws {
        guard let path = getenv(SwapSpace.variable).map({ String(cString: $0) }) else {
            throw CaseSkip("the runner has made no swap space")
        }
        let answer = css_swapoff(path)
        guard -answer != ENOMEM else { throw CaseSkip(thisTime: "there was no memory for what is swapped out") }
        try expectEqual(answer, 0, "answer of swapoff")
    }

    /// Mounts a tmpfs that only this process sees.
    ///
    /// The case requires `.privateMounts`.
    ///
    /// - Parameter options: Mount options, such as `size=1m` or `huge=always`.
    /// - Returns: The directory.
    package func mountPrivateTmpfs(options: String) throws(Errno) -> String {
        try checked(css_unshare_mounts())
        // Covered in this namespace alone, whatever it holds.
        let directory = "/tmp"
        try checked(css_mount_tmpfs(directory, options))
        return directory
    }

    /// Mounts a hugetlbfs that only this process sees and that gives out so many pages at most.
    ///
    /// To run out of them takes no page from anybody else. The case requires `.privateHugetlbfs`.
    ///
    /// - Returns: The directory.
    package func mountPrivateHugetlbfs(pages: Int) throws(Errno) -> String {
        try checked(css_unshare_mounts())
        let size = Area.pageSize(of: .hugetlb).bytes
        let directory = "/tmp"
        try checked(css_mount_hugetlbfs(directory, "pagesize=\(size),size=\(pages * size)"))
        return directory
    }

    /// A directory on a tmpfs in which this user can make files.
    package func tmpfsDirectory() throws(CaseSkip) -> String {
        guard let room = TmpfsRoom.best else { throw CaseSkip("no tmpfs is mounted where this user can write") }
        return room.directory
    }
}
