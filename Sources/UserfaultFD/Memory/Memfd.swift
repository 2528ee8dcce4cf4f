internal import CUserfaultFD
public import SystemPackage

/// A file that lives in memory, which the value owns.
///
/// Mapped twice, it is what minor faults are for: pages are filled through one mapping and continued in the other.
public struct Memfd: ~Copyable, Sendable {
    package let descriptor: OwnedDescriptor

    /// The size of the file's pages: the huge page's if it was made of huge pages.
    public let pageSize: PageSize

    /// Creates a memory file.
    ///
    /// It is closed by `execve`, and may be sealed. The corresponding system call is `memfd_create(2)`.
    ///
    /// - Parameters:
    ///   - name: Seen in `/proc/PID/maps` only; need not be unique.
    ///   - count: The length, in bytes; a whole number of huge pages if it is made of those.
    ///   - hugePages: Makes it of huge pages of this size.
    /// - Throws: ``UserfaultError``: `EMFILE`, `ENOMEM`, `EINVAL` for a name that is too long or a negative length,
    ///   `ENOENT` or `ENODEV` for a page size that the machine does not have.
    public init(name: String = "userfaultfd", count: Int, hugePages: PageSize? = nil) throws(UserfaultError) {
        guard hugePages ?? .base >= .base else { throw UserfaultError(.createMemfd, errno: .invalidArgument) }
        var flags = CUFFD_MFD_CLOEXEC | CUFFD_MFD_ALLOW_SEALING
        if let hugePages { flags |= CUFFD_MFD_HUGETLB | CUnsignedInt(hugePages.log2) << CUFFD_MAP_HUGE_SHIFT }
        let owned = OwnedDescriptor(
            adopting: try answer(to: .createMemfd) { unsafe cuffd_memfd_create(name, flags) })
        try owned.resize(to: count)
        descriptor = owned
        pageSize = hugePages ?? .base
    }

    /// Takes over a file that nobody else will close: a received memfd, a file on tmpfs or hugetlbfs, or a guest_memfd.
    ///
    /// - Parameter rawDescriptor: The file. It stays open, and yours, if this throws.
    /// - Throws: ``UserfaultError``: `EBADF` if it is not open; `EINVAL` with the reason
    ///   ``UserfaultError/Reason/notMemoryFile`` for a pipe, a directory, or a file on a disk.
    public init(adopting rawDescriptor: Int32) throws(UserfaultError) {
        let status = try FileStatus(of: rawDescriptor)
        guard status.isMemoryFile, let pageSize = PageSize(bytes: status.pageBytes) else {
            throw UserfaultError(.fileStatus, errno: .invalidArgument, circumstance: .notMemoryFile)
        }
        descriptor = OwnedDescriptor(adopting: rawDescriptor)
        self.pageSize = pageSize
    }

    /// A second descriptor of a memory file that somebody else owns.
    package init(duplicating rawDescriptor: Int32) throws(UserfaultError) {
        let raw = try OwnedDescriptor(duplicating: rawDescriptor).release()
        do throws(UserfaultError) {
            try self.init(adopting: raw)
        } catch {
            _ = OwnedDescriptor(adopting: raw)
            throw error
        }
    }

    /// How large the file is.
    public struct Status: Hashable, Sendable {
        /// The file's length, in bytes.
        public let count: Int
        /// The memory that it occupies, in units of 512 bytes: `st_blocks`.
        public let blocks: Int
    }

    /// How large the file is.
    ///
    /// The corresponding system call is `fstat(2)`.
    public func status() throws(UserfaultError) -> Status {
        let status = try descriptor.status()
        return Status(count: status.count, blocks: status.blocks)
    }

    /// Changes the file's length.
    ///
    /// Pages after the end are dropped, and touching them ends in `SIGBUS`.
    ///
    /// No event reports it to a userfaultfd. The corresponding system call is `ftruncate(2)`.
    ///
    /// - Parameter count: The new length, in bytes.
    /// - Throws: ``UserfaultError``: `EPERM` if a seal forbids it, `EINVAL`.
    public func resize(to count: Int) throws(UserfaultError) {
        try descriptor.resize(to: count)
    }

    /// Drops the pages of a part of the file, which becomes a hole.
    ///
    /// No event reports it to a userfaultfd, and no thread is woken. The corresponding system call is `fallocate(2)` with
    /// `FALLOC_FL_PUNCH_HOLE`.
    ///
    /// - Parameters:
    ///   - offset: Where the part begins, in bytes.
    ///   - count: The length of the part, in bytes.
    /// - Throws: ``UserfaultError``: `EPERM` if a seal forbids it, `EINVAL`.
    public func punchHole(at offset: Int, count: Int) throws(UserfaultError) {
        let mode = CUFFD_FALLOC_PUNCH_HOLE | CUFFD_FALLOC_KEEP_SIZE
        _ = try answer(to: .allocate) {
            cuffd_fallocate(descriptor.rawValue, mode, Int64(offset), Int64(count))
        }
    }

    /// Allocates pages of zeros for the parts of the file that have none; the file grows if needed.
    ///
    /// The corresponding system call is `fallocate(2)`.
    ///
    /// - Parameters:
    ///   - offset: Where the part begins, in bytes.
    ///   - count: The length of the part, in bytes.
    /// - Throws: ``UserfaultError``: `ENOSPC`, `EPERM`, `EINVAL`; `EINTR` if a signal ended it, after which some kernels
    ///   have undone what was allocated.
    public func allocate(at offset: Int, count: Int) throws(UserfaultError) {
        _ = try answer(to: .allocate) {
            cuffd_fallocate(descriptor.rawValue, 0, Int64(offset), Int64(count))
        }
    }

    /// The first memory that ends after an offset, up to the next hole; `nil` if there is none until the file's end.
    package func dataRange(from offset: Int) throws(UserfaultError) -> Range<Int>? {
        try descriptor.dataRange(from: offset)
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
