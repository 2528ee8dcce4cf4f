internal import CUserfaultFD

extension Memfd {
    /// Writes bytes into the file.
    ///
    /// The corresponding system call is `pwrite(2)`, repeated until everything is written.
    ///
    /// - Parameters:
    ///   - bytes: What to write.
    ///   - offset: Where to write it, in bytes.
    /// - Throws: ``UserfaultError``, whose ``UserfaultError/bytesCompleted`` says how far it got: `ENOSPC` if the
    ///   tmpfs is full, `EPERM` if a seal forbids it, `EINVAL` for a file of huge pages, which is written by mapping, or
    ///   for a negative offset.
    public func write(_ bytes: RawSpan, at offset: Int) throws(UserfaultError) {
        try descriptor.write(bytes, at: offset)
    }

    /// Reads bytes of the file.
    ///
    /// The corresponding system call is `pread(2)`, repeated until everything is read.
    ///
    /// - Parameters:
    ///   - bytes: Where they go: all of it is filled.
    ///   - offset: Where to read, in bytes.
    /// - Throws: ``UserfaultError``, whose ``UserfaultError/bytesCompleted`` says how far it got; `ENODATA` at the
    ///   file's end.
    public func read(into bytes: inout MutableRawSpan, at offset: Int) throws(UserfaultError) {
        try descriptor.read(into: &bytes, at: offset)
    }

    /// What can no longer be done with a file.
    public struct Seals: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: Int32

        /// A set of the kernel's bits, whatever they are.
        public init(rawValue: Int32) {
            self.rawValue = rawValue
        }

        /// No more seals can be added.
        ///
        /// The corresponding C constant is `F_SEAL_SEAL`.
        public static var seal: Seals { Seals(rawValue: 1) }
        /// The file cannot become shorter.
        ///
        /// The corresponding C constant is `F_SEAL_SHRINK`.
        public static var shrink: Seals { Seals(rawValue: 2) }
        /// The file cannot become longer.
        ///
        /// The corresponding C constant is `F_SEAL_GROW`.
        public static var grow: Seals { Seals(rawValue: 4) }
        /// The file cannot be written, nor registered through a shared mapping.
        ///
        /// The corresponding C constant is `F_SEAL_WRITE`.
        public static var write: Seals { Seals(rawValue: 8) }
        /// The file can be written only through shared mappings that exist already.
        ///
        /// The corresponding C constant is `F_SEAL_FUTURE_WRITE`. Available since Linux 5.1.
        public static var futureWrite: Seals { Seals(rawValue: 16) }
    }

    /// Adds seals, which cannot be removed.
    ///
    /// - Parameter seals: What can no longer be done.
    /// - Throws: ``UserfaultError``: `EBUSY` for ``Seals/write`` while a writable shared mapping exists, `EPERM` if no seal
    ///   may be added.
    public func addSeals(_ seals: Seals) throws(UserfaultError) {
        _ = try answer(to: .seal) { cuffd_add_seals(descriptor.rawValue, seals.rawValue) }
    }

    /// The seals that the file has.
    ///
    /// - Throws: ``UserfaultError``: `EINVAL` for a file that cannot have any.
    public func seals() throws(UserfaultError) -> Seals {
        Seals(rawValue: try answer(to: .seal) { cuffd_get_seals(descriptor.rawValue) })
    }
}
