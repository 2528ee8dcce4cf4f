internal import CUserfaultFD
public import SystemPackage

/// A file that lives in memory, which the value owns.
///
/// Mapped twice, it is the ground of minor faults: pages are filled through one mapping and continued in the other.
public struct Memfd: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor

    /// The size of the file's pages: the huge page's where it was made of huge pages.
    public let pageSize: PageSize

    /// Creates a memory file.
    ///
    /// It is closed by `execve`, and may be sealed. The corresponding system call is `memfd_create(2)`.
    ///
    /// - Parameters:
    ///   - name: Seen in `/proc/PID/maps` only; need not be unique.
    ///   - count: The length, in bytes; a whole number of huge pages where it is made of those.
    ///   - hugePages: Makes it of huge pages of this size.
    /// - Throws: ``UserfaultError``: `EMFILE`, `ENOMEM`, `EINVAL` for a name that is too long or a length that does not
    ///   suit, `ENOENT` or `ENODEV` for a page size that the machine lacks.
    public init(name: String = "userfaultfd", count: Int, hugePages: PageSize? = nil) throws(UserfaultError) {
        var flags = CUFFD_MFD_CLOEXEC | CUFFD_MFD_ALLOW_SEALING
        if let hugePages { flags |= CUFFD_MFD_HUGETLB | CUnsignedInt(hugePages.log2) << CUFFD_MAP_HUGE_SHIFT }
        let answer = unsafe cuffd_memfd_create(name, flags)
        guard answer >= 0 else { throw UserfaultError(.createMemfd, answer: answer) }
        let owned = OwnedDescriptor(adopting: answer)
        let resized = cuffd_ftruncate(owned.rawValue, Int64(count))
        guard resized >= 0 else { throw UserfaultError(.resize, answer: resized) }
        descriptor = owned
        pageSize = hugePages ?? .base
    }

    /// Takes over a file that nobody else will close: a received memfd, or a file on tmpfs or hugetlbfs.
    ///
    /// - Parameter rawDescriptor: The file. It is closed where this throws.
    /// - Throws: ``UserfaultError``, with what `fstat(2)` answered.
    public init(adopting rawDescriptor: Int32) throws(UserfaultError) {
        let owned = OwnedDescriptor(adopting: rawDescriptor)
        var status = cuffd_file_status()
        let answer = unsafe cuffd_fstat(owned.rawValue, &status)
        guard answer >= 0 else { throw UserfaultError(.fileStatus, answer: answer) }
        guard let pageSize = PageSize(bytes: Int(clamping: status.page_size)) else {
            throw UserfaultError(.fileStatus, errno: .invalidArgument)
        }
        descriptor = owned
        self.pageSize = pageSize
    }

    /// What the file takes.
    public struct Status: Hashable, Sendable {
        /// The file's length, in bytes.
        public let count: Int
        /// What it takes in memory, in units of 512 bytes: `st_blocks`.
        public let blocks: Int
    }

    /// What the file takes.
    ///
    /// The corresponding system call is `fstat(2)`.
    public func status() throws(UserfaultError) -> Status {
        var status = cuffd_file_status()
        let answer = unsafe cuffd_fstat(descriptor.rawValue, &status)
        guard answer >= 0 else { throw UserfaultError(.fileStatus, answer: answer) }
        return Status(count: Int(clamping: status.bytes), blocks: Int(clamping: status.blocks))
    }

    /// Changes the file's length.
    ///
    /// Pages behind the end are dropped, and touching them ends in `SIGBUS`.
    ///
    /// No event tells a userfaultfd of it. The corresponding system call is `ftruncate(2)`.
    ///
    /// - Parameter count: The new length, in bytes.
    /// - Throws: ``UserfaultError``: `EPERM` where a seal forbids it, `EINVAL`.
    public func resize(to count: Int) throws(UserfaultError) {
        let answer = cuffd_ftruncate(descriptor.rawValue, Int64(count))
        guard answer >= 0 else { throw UserfaultError(.resize, answer: answer) }
    }

    /// Drops the pages of a part of the file, which becomes a hole.
    ///
    /// No event tells a userfaultfd of it, and no waiter is woken. The corresponding system call is `fallocate(2)` with
    /// `FALLOC_FL_PUNCH_HOLE`.
    ///
    /// - Parameters:
    ///   - offset: Where the part begins, in bytes.
    ///   - count: The length of the part, in bytes.
    /// - Throws: ``UserfaultError``: `EPERM` where a seal forbids it, `EINVAL`.
    public func punchHole(at offset: Int, count: Int) throws(UserfaultError) {
        let mode = CUFFD_FALLOC_PUNCH_HOLE | CUFFD_FALLOC_KEEP_SIZE
        let answer = cuffd_fallocate(descriptor.rawValue, mode, Int64(offset), Int64(count))
        guard answer >= 0 else { throw UserfaultError(.allocate, answer: answer) }
    }

    /// Gives a part of the file pages of zeros where it has none; the file grows where it must.
    ///
    /// The corresponding system call is `fallocate(2)`.
    ///
    /// - Parameters:
    ///   - offset: Where the part begins, in bytes.
    ///   - count: The length of the part, in bytes.
    /// - Throws: ``UserfaultError``: `ENOSPC`, `EPERM`, `EINVAL`.
    public func allocate(at offset: Int, count: Int) throws(UserfaultError) {
        let answer = cuffd_fallocate(descriptor.rawValue, 0, Int64(offset), Int64(count))
        guard answer >= 0 else { throw UserfaultError(.allocate, answer: answer) }
    }

    /// Closes the file; its mappings stay.
    public consuming func close() throws(UserfaultError) {
        try descriptor.close()
    }

    /// Gives the descriptor up without closing it: the caller owns it from now on.
    public consuming func release() -> Int32 {
        descriptor.release()
    }

    /// Lends the descriptor for a call that this library does not have.
    ///
    /// The closure must not close it, nor keep it.
    public func withUnsafeDescriptor<Result: ~Copyable, Failure: Error>(
        _ body: (FileDescriptor) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(FileDescriptor(rawValue: descriptor.rawValue))
    }
}
