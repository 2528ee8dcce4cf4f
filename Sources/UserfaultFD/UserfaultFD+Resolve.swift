internal import CUserfaultFD
internal import SystemPackage

// The calls that put pages where a fault found none. Each names the range that it fills; all of them answer alike:
//   done                     the number of bytes, which is the whole range
//   EEXIST                   the first page is there already; nobody was woken
//   EAGAIN, bytes > 0        stopped on the way; what is done is done, and its threads are woken
//   EAGAIN, bytes == 0       the mapping is changing: read events first
//   ENOENT                   not registered, or the range leaves its mapping
//   ESRCH                    the process is gone
// In place of empty literals they have `.init()`: literals take memory in programs that are not optimized, and a thread
// inside `fork` may hold the heap's locks while it waits for the caller.

extension UserfaultFD {
    /// Fills missing pages with a copy of bytes of this program, and wakes the threads that wait for them.
    ///
    /// No thread sees a page before it is complete. On a shared mapping the pages go into the file; on a private one
    /// they belong to the mapping, and the file stays as it is. The corresponding ioctl is `UFFDIO_COPY`. Available
    /// since Linux 4.3.
    ///
    /// - Parameters:
    ///   - source: The contents, as many bytes as the range has. They need not be aligned, and must not be memory whose
    ///     faults this same thread resolves.
    ///   - destination: The pages to fill: whole pages, in the memory of the descriptor's process.
    ///   - options: Whether to wake, and whether to protect.
    /// - Returns: The bytes that were filled: all of the range.
    /// - Throws: ``UserfaultError``: `EEXIST`, `EAGAIN`, `ENOENT`, `ESRCH` as for every call that fills pages; `EFAULT`
    ///   if the source cannot be read or the range lies past the end of the file (`ENOMEM` on shared memory since Linux
    ///   7.1); `ENOMEM` for memory, a limit of the cgroup, a full tmpfs or an empty huge page pool (`EEXIST` since Linux
    ///   6.18: ``UserfaultError/Reason/alreadyMappedOrPoolEmpty``); `EINVAL` for a bad range, for a source of another
    ///   length, or for ``CopyOptions/writeProtect`` on a range that is not registered for it.
    @discardableResult
    public func copy(
        _ source: RawSpan, to destination: AddressRange, options: CopyOptions = .init()
    ) throws(UserfaultError) -> Int {
        guard source.byteCount == destination.count else {
            throw UserfaultError(.copy, errno: .invalidArgument)
        }
        return try unsafe source.withUnsafeBytes { (bytes) throws(UserfaultError) in
            try copy(from: UInt(bitPattern: bytes.baseAddress), to: destination, options: options)
        }
    }

    /// Fills missing pages with a copy of memory that is given by its address, and wakes the threads that wait.
    ///
    /// As ``copy(_:to:options:)``, for sources that are no span: a mapped file, whose pages the kernel reads on its way,
    /// or memory that may not be readable. The kernel only reads the source, and checks that it may.
    ///
    /// - Parameters:
    ///   - source: The address of the contents in this program; it need not be aligned.
    ///   - destination: The pages to fill.
    ///   - options: Whether to wake, and whether to protect.
    /// - Returns: The bytes that were filled.
    /// - Throws: ``UserfaultError``, as ``copy(_:to:options:)``.
    @discardableResult
    public func copy(
        from source: UInt, to destination: AddressRange, options: CopyOptions = .init()
    ) throws(UserfaultError) -> Int {
        let needed: Features = options.contains(.writeProtect) ? .writeProtect : []
        return try fill(.copy, destination, needing: needed) { bytes in
            unsafe cuffd_copy(
                descriptor.rawValue, UInt64(destination.start), UInt64(source), UInt64(destination.count),
                options.rawValue, &bytes)
        }
    }

    /// Fills missing pages with zeros, and wakes the threads that wait for them.
    ///
    /// Anonymous memory and private mappings get the shared zero page, which costs nothing until it is written. The
    /// result is never protected. The corresponding ioctl is `UFFDIO_ZEROPAGE`. Available since Linux 4.3.
    ///
    /// - Parameters:
    ///   - range: The pages to fill. Not of hugetlbfs (`EINVAL`): copy a page of zeros there.
    ///   - options: Whether to wake.
    /// - Returns: The bytes that were filled.
    /// - Throws: ``UserfaultError``: `EEXIST` (also for a page that is protected while empty, on private mappings),
    ///   `EAGAIN`, `ENOENT`, `ESRCH` as for every call that fills pages; `EFAULT` past the end of the file (`ENOMEM` on
    ///   shared mappings since Linux 7.1); `EINVAL` for a bad range or hugetlbfs.
    @discardableResult
    public func zeropage(_ range: AddressRange, options: ZeropageOptions = .init()) throws(UserfaultError) -> Int {
        try fill(.zeropage, range) { bytes in
            unsafe cuffd_zeropage(
                descriptor.rawValue, UInt64(range.start), UInt64(range.count), options.rawValue, &bytes)
        }
    }

    /// Maps pages that the file has already, and wakes the threads that wait: the answer to a minor fault.
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
    ///   if the file has no page (``UserfaultError/Reason/noPageInFile``); past the end of the file `EINVAL`, since Linux
    ///   7.1 `EFAULT`; `EIO` for broken memory; `EINVAL` for a bad range or anonymous memory, and for
    ///   ``ContinueOptions/writeProtect`` on a range that is not registered for it;
    ///   ``UserfaultError/Reason/unsupported`` for that option before Linux 6.4.
    @discardableResult
    public func `continue`(_ range: AddressRange, options: ContinueOptions = .init()) throws(UserfaultError) -> Int {
        // Linux 6.4 brought UFFDIO_CONTINUE_MODE_WP and WP_UNPOPULATED, and both need the markers of empty pages.
        let needed: Features = options.contains(.writeProtect) ? .writeProtectUnpopulated : .minorFaults
        return try fill(.continue, range, needing: needed) { bytes in
            unsafe cuffd_continue(
                descriptor.rawValue, UInt64(range.start), UInt64(range.count), options.rawValue, &bytes)
        }
    }

    /// Marks missing pages as broken, and wakes the threads that wait: a thread that touches them gets `SIGBUS`.
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
    ///   past the end of the file; ``UserfaultError/Reason/unsupported`` before Linux 6.6.
    @discardableResult
    public func poison(_ range: AddressRange, options: PoisonOptions = .init()) throws(UserfaultError) -> Int {
        try fill(.poison, range, needing: .poison) { bytes in
            unsafe cuffd_poison(
                descriptor.rawValue, UInt64(range.start), UInt64(range.count), options.rawValue, &bytes)
        }
    }

    /// Moves pages of anonymous memory to missing pages, without copying them, and wakes the threads that wait.
    ///
    /// The source reads as zeros afterwards, or faults if it is registered. Exclude the source from forks
    /// (``Advice/dontFork``): a page that a child shares cannot be moved. The corresponding ioctl is `UFFDIO_MOVE`.
    /// Available since Linux 6.8.
    ///
    /// - Warning: The source's pages are taken away from whatever this program keeps there. They must be the caller's to
    ///   give: memory of a ``Mapping``, and nothing that a Swift value lives in.
    /// - Parameters:
    ///   - source: The address of the first page to move, in this process; it need not be registered.
    ///   - destination: The pages to fill, registered with this descriptor.
    ///   - options: Whether to wake, and whether the source may have holes.
    /// - Returns: The bytes that were moved, holes included.
    /// - Throws: ``UserfaultError``: `EEXIST`, `EAGAIN`, `ENOENT`, `ESRCH` as for every call that fills pages; `ENOENT`
    ///   with the reason ``UserfaultError/Reason/noSourcePage`` for a hole in the source, which wants zeros instead;
    ///   `EBUSY` for a source page that is shared or pinned; `EFAULT` for a source page that is poisoned or protected
    ///   while empty; `EINVAL` for a destination that is not registered with this descriptor, for memory that is not
    ///   anonymous and private, for mappings that differ in protection or locking, if a range leaves its mapping, and from
    ///   another process; ``UserfaultError/Reason/unsupported`` before
    ///   Linux 6.8.
    @unsafe
    @discardableResult
    public func move(
        from source: UInt, to destination: AddressRange, options: MoveOptions = .init()
    ) throws(UserfaultError) -> Int {
        try fill(.move, destination, needing: .move) { bytes in
            unsafe cuffd_move(
                descriptor.rawValue, UInt64(destination.start), UInt64(source), UInt64(destination.count),
                options.rawValue, &bytes)
        }
    }

    /// Calls one of the above: bytes, or an error that carries the progress.
    @inline(__always)
    private func fill(
        _ operation: UserfaultError.Operation, _ range: AddressRange, needing needed: Features = .init(),
        _ call: (inout Int64) -> CInt
    ) throws(UserfaultError) -> Int {
        var bytes: Int64 = 0
        let answer = call(&bytes)
        guard answer >= 0 else {
            let errno = Errno(rawValue: -answer)
            throw UserfaultError(
                operation, errno: errno,
                // The kernel's output word holds bytes, or -errno again, or what it was.
                bytesCompleted: max(0, Int(bytes)), circumstance: explain(errno, of: operation, range, needing: needed))
        }
        return Int(bytes)
    }
}
