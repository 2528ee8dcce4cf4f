internal import CUserfaultFD
internal import SystemPackage

// The calls that put pages where a fault found none. All of them answer alike:
//   done                     the number of bytes, which is the whole range
//   EEXIST                   the first page is there already; nobody was woken
//   EAGAIN, bytes > 0        stopped on the way; what is done is done, and its waiters are woken
//   EAGAIN, bytes == 0       the mapping is changing: read events first
//   ENOENT                   not registered, or the range leaves its mapping
//   ESRCH                    the process is gone

extension UserfaultFD {
    /// Fills missing pages with a copy of bytes of this program, and wakes their waiters.
    ///
    /// Nobody sees a page before it is complete. On a shared mapping the pages go into the file; on a private one they
    /// belong to the mapping, and the file stays as it is. The corresponding ioctl is `UFFDIO_COPY`. Available since
    /// Linux 4.3.
    ///
    /// - Parameters:
    ///   - source: The contents: a whole number of pages. It need not be aligned, and must not be memory that this
    ///     same thread is to resolve.
    ///   - destination: The address of the first page, in the memory of the descriptor's process.
    ///   - options: Whether to wake, and whether to protect.
    /// - Returns: The bytes that were filled: all of `source`.
    /// - Throws: ``UserfaultError``: `EEXIST`, `EAGAIN`, `ENOENT`, `ESRCH` as for every call that fills pages; `EFAULT`
    ///   where the source cannot be read or the range lies past the file's end (`ENOMEM` there on Linux 7.3); `ENOMEM`
    ///   for memory, a cgroup's limit, a full tmpfs or an empty huge page pool (`EEXIST` there on Linux 7.3); `EINVAL`
    ///   for a bad range, or ``CopyOptions/writeProtect`` on a range that is not registered for it.
    @discardableResult
    public func copy(
        _ source: RawSpan, to destination: UInt, options: CopyOptions = []
    ) throws(UserfaultError) -> Int {
        let (_, wraps) = destination.addingReportingOverflow(UInt(bitPattern: source.byteCount))
        guard !wraps else { throw UserfaultError(.copy, errno: .invalidArgument) }
        return try unsafe source.withUnsafeBytes { (bytes) throws(UserfaultError) in
            unsafe try copy(
                from: UInt(bitPattern: bytes.baseAddress),
                to: AddressRange(start: destination, count: bytes.count),
                options: options)
        }
    }

    /// Fills missing pages with a copy of memory that is given by its address, and wakes their waiters.
    ///
    /// As ``copy(_:to:options:)``, for sources that are no span: a mapped file, whose pages the kernel reads on its way,
    /// or memory that may not be readable, which answers `EFAULT`.
    ///
    /// - Parameters:
    ///   - source: The address of the contents in this program; it need not be aligned.
    ///   - destination: The pages to fill.
    ///   - options: Whether to wake, and whether to protect.
    /// - Returns: The bytes that were filled.
    /// - Throws: ``UserfaultError``, as ``copy(_:to:options:)``.
    @unsafe
    @discardableResult
    public func copy(
        from source: UInt, to destination: AddressRange, options: CopyOptions = []
    ) throws(UserfaultError) -> Int {
        var copied: Int64 = 0
        let answer = unsafe cuffd_copy(
            descriptor.rawValue, UInt64(destination.start), UInt64(source), UInt64(destination.count),
            options.rawValue, &copied)
        let needed: Features = options.contains(.writeProtect) ? .writeProtect : []
        return try filled(.copy, answer, copied, needing: needed)
    }

    /// Fills missing pages with zeros, and wakes their waiters.
    ///
    /// Anonymous memory and private mappings get the shared zero page, which costs nothing until it is written. The
    /// result is never protected. The corresponding ioctl is `UFFDIO_ZEROPAGE`. Available since Linux 4.3.
    ///
    /// - Parameters:
    ///   - range: The pages to fill. Not of hugetlbfs (`EINVAL`): copy a page of zeros there.
    ///   - options: Whether to wake.
    /// - Returns: The bytes that were filled.
    /// - Throws: ``UserfaultError``: `EEXIST` (also for a page that is protected while empty, on private mappings),
    ///   `EAGAIN`, `ENOENT`, `ESRCH` as for every call that fills pages; `EFAULT` past the file's end (`ENOMEM` there
    ///   on shared mappings of Linux 7.3); `EINVAL` for a bad range or hugetlbfs.
    @discardableResult
    public func zeropage(_ range: AddressRange, options: ZeropageOptions = []) throws(UserfaultError) -> Int {
        var zeroed: Int64 = 0
        let answer = unsafe cuffd_zeropage(
            descriptor.rawValue, UInt64(range.start), UInt64(range.count), options.rawValue, &zeroed)
        return try filled(.zeropage, answer, zeroed)
    }

    /// Maps pages that the file has already, and wakes their waiters: the answer to a minor fault.
    ///
    /// What was stored through another mapping before the call is seen by the woken thread. On a private mapping the
    /// first write makes a copy, and the file stays as it is. The corresponding ioctl is `UFFDIO_CONTINUE`. Available
    /// since Linux 5.13 for hugetlbfs, since 5.14 for shared memory.
    ///
    /// - Parameters:
    ///   - range: The pages to map.
    ///   - options: Whether to wake, and whether to protect.
    /// - Returns: The bytes that were mapped.
    /// - Throws: ``UserfaultError``: `EEXIST`, `EAGAIN`, `ENOENT`, `ESRCH` as for every call that fills pages; `EFAULT`
    ///   where the file has no page (``UserfaultError/Reason/noPageInFile``); past the file's end `EINVAL`, since Linux
    ///   7.1 `EFAULT`; `EIO` for broken memory; `EINVAL` for a bad range or anonymous memory, and for
    ///   ``ContinueOptions/writeProtect`` on a range that is not registered for it;
    ///   ``UserfaultError/Reason/unsupported`` for that option before Linux 6.4.
    @discardableResult
    public func `continue`(_ range: AddressRange, options: ContinueOptions = []) throws(UserfaultError) -> Int {
        var mapped: Int64 = 0
        let answer = unsafe cuffd_continue(
            descriptor.rawValue, UInt64(range.start), UInt64(range.count), options.rawValue, &mapped)
        // Linux 6.4 brought UFFDIO_CONTINUE_MODE_WP and WP_UNPOPULATED, and both need the markers of empty pages.
        let needed: Features =
            options.contains(.writeProtect) ? .writeProtectUnpopulated : [.minorShmem, .minorHugetlbfs]
        return try filled(.continue, answer, mapped, needing: needed)
    }

    /// Marks missing pages as broken, and wakes their waiters: whoever touches them gets `SIGBUS`.
    ///
    /// What to do with a page whose contents cannot be had. Only this mapping is affected; the signal's code is
    /// `BUS_MCEERR_AR`, or `BUS_ADRERR` on kernels without memory failure handling. `MADV_DONTNEED` heals the page, and
    /// so does ``copy(_:to:options:)``. The corresponding ioctl is `UFFDIO_POISON`. Available since Linux 6.6.
    ///
    /// - Parameters:
    ///   - range: The pages to poison.
    ///   - options: Whether to wake.
    /// - Returns: The bytes that were poisoned.
    /// - Throws: ``UserfaultError``: `EEXIST`, `EAGAIN`, `ENOENT`, `ESRCH` as for every call that fills pages; `EFAULT`
    ///   past the file's end; ``UserfaultError/Reason/unsupported`` before Linux 6.6.
    @discardableResult
    public func poison(_ range: AddressRange, options: PoisonOptions = []) throws(UserfaultError) -> Int {
        var poisoned: Int64 = 0
        let answer = unsafe cuffd_poison(
            descriptor.rawValue, UInt64(range.start), UInt64(range.count), options.rawValue, &poisoned)
        return try filled(.poison, answer, poisoned, needing: .poison)
    }

    /// Moves pages of anonymous memory to missing pages, without copying them, and wakes the waiters.
    ///
    /// The source reads as zeros afterwards, or faults where it is registered. Exclude the source from forks
    /// (``Advice/dontFork``): a page that a child shares cannot be moved. The corresponding ioctl is `UFFDIO_MOVE`.
    /// Available since Linux 6.8.
    ///
    /// - Parameters:
    ///   - source: The address of the first page to move, in this process; it need not be registered.
    ///   - destination: The pages to fill, registered with this descriptor.
    ///   - options: Whether to wake, and whether the source may have holes.
    /// - Returns: The bytes that were moved, holes included.
    /// - Throws: ``UserfaultError``: `EEXIST`, `EAGAIN`, `ESRCH` as for every call that fills pages; `ENOENT` also for a
    ///   hole in the source; `EBUSY` for a source page that is shared or pinned; `EFAULT` for a source page that is
    ///   poisoned or protected while empty; `EINVAL` for memory that is not anonymous and private, for mappings that
    ///   differ in protection or locking, where a range leaves its mapping, and from another process;
    ///   ``UserfaultError/Reason/unsupported`` before Linux 6.8.
    @discardableResult
    public func move(
        from source: UInt, to destination: AddressRange, options: MoveOptions = []
    ) throws(UserfaultError) -> Int {
        var moved: Int64 = 0
        let answer = unsafe cuffd_move(
            descriptor.rawValue, UInt64(destination.start), UInt64(source), UInt64(destination.count),
            options.rawValue, &moved)
        return try filled(.move, answer, moved, needing: .move)
    }

    /// The answer of a call that fills pages: bytes, or an error that carries the progress.
    private func filled(
        _ operation: UserfaultError.Operation, _ answer: CInt, _ bytes: Int64, needing needed: Features = []
    ) throws(UserfaultError) -> Int {
        guard answer >= 0 else {
            // The kernel's output word holds bytes, or -errno again, or what it was.
            throw UserfaultError(
                operation, answer: answer, bytesCompleted: max(0, Int(bytes)),
                circumstances: explain(answer, needing: needed))
        }
        return Int(bytes)
    }
}
