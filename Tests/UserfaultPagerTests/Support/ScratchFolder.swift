import Glibc
import Testing

/// A folder of a test's own, which goes with the value.
final class ScratchFolder: Sendable {
    let path: String
    private let isMounted: Bool

    /// - Parameter size: Makes it a disk of its own, in memory; for root. `nil` for a folder of the usual one.
    init(size: String? = nil) throws {
        var template = Array("/tmp/uffd-scratch-XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        path = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        isMounted = size != nil
        if let size { try #require(mount("none", path, "tmpfs", 0, "size=\(size)") == 0) }
    }

    /// Lets nobody write to its disk any more.
    func makeReadOnly() throws {
        // Busy until the last file is closed that was open for writing.
        try #require(wait { mount("none", path, "tmpfs", UInt(MS_REMOUNT | MS_RDONLY), nil) == 0 })
    }

    deinit {
        if isMounted {
            umount2(path, CInt(MNT_DETACH))
        } else {
            unlink("\(path)/chunks")
        }
        rmdir(path)
    }
}
