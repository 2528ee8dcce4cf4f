internal import CUserfaultFD
internal import SystemPackage
internal import UserfaultFD

/// A file, which the value closes.
struct OwnedFile: ~Copyable, Sendable {
    let rawValue: Int32

    deinit {
        _ = cuffd_close(rawValue)
    }

    init(adopting rawValue: Int32) {
        precondition(rawValue >= 0, "a descriptor is never negative")
        self.rawValue = rawValue
    }

    /// The size of a file, in bytes.
    static func size(_ rawDescriptor: Int32) throws(PagerError) -> Int {
        var status = cuffd_file_status()
        let answer = unsafe cuffd_fstat(rawDescriptor, &status)
        guard answer >= 0 else { throw .file(Errno(rawValue: -answer)) }
        return Int(status.bytes)
    }
}
