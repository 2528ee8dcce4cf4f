import CSelftestSupport
import Glibc
package import SystemPackage

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

    /// A directory on a tmpfs in which this user can make files.
    package func tmpfsDirectory() throws(CaseSkip) -> String {
        for directory in ["/dev/shm", "/run/user/\(getuid())", "/tmp", "/run"] {
            if css_is_tmpfs(directory), access(directory, W_OK) == 0 { return directory }
        }
        throw CaseSkip("no tmpfs is mounted where this user can write")
    }
}
