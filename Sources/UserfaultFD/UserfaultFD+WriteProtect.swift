internal import CUserfaultFD

extension UserfaultFD {
    /// Protects pages against writing, or removes that protection and wakes the threads that wait to write.
    ///
    /// The range must be registered for ``RegisterModes/writeProtect``. Pages that are not there are protected too on
    /// shared memory and hugetlbfs, and on anonymous memory with ``Features/writeProtectUnpopulated``. The
    /// corresponding ioctl is `UFFDIO_WRITEPROTECT`. Available since Linux 5.7.
    ///
    /// - Parameters:
    ///   - range: The pages. Linux 5.10 takes one private anonymous mapping, 6.1 one mapping, 6.4 and later any number,
    ///     with gaps.
    ///   - protection: ``Protection/protect``, ``Protection/unprotect`` or ``Protection/unprotectWithoutWaking``.
    /// - Throws: ``UserfaultError``: `ENOENT` if a mapping is not registered for it, and mappings before that one
    ///   keep the change; `EAGAIN` if the mapping is changing; `ESRCH` if the process is gone; `ENOMEM`; `EINVAL`
    ///   for a bad range, or one that is not aligned to the huge page.
    public func writeProtect(_ range: AddressRange, _ protection: Protection) throws(UserfaultError) {
        _ = try answer(
            to: .writeProtect, circumstance: { explain($0, of: .writeProtect, range, needing: .writeProtect) }
        ) {
            cuffd_writeprotect(descriptor.rawValue, UInt64(range.start), UInt64(range.count), protection.rawValue)
        }
    }

    /// Protects pages against every access, or removes that protection and wakes the threads that wait.
    ///
    /// The range must be registered for ``RegisterModes/readWriteProtect``. Only pages that are there are protected,
    /// and they stay in memory. The corresponding ioctl is `UFFDIO_RWPROTECT`. Available since Linux 7.3.
    ///
    /// - Parameters:
    ///   - range: The pages, of any number of mappings.
    ///   - protection: ``Protection/protect``, ``Protection/unprotect`` or ``Protection/unprotectWithoutWaking``.
    /// - Throws: ``UserfaultError``: `ENOENT` if a mapping is not registered for it, and then nothing has changed;
    ///   `EAGAIN` if the mapping is changing; `ESRCH` if the process is gone; `EINVAL` for a bad range;
    ///   ``UserfaultError/Reason/unsupported`` before Linux 7.3.
    public func rwProtect(_ range: AddressRange, _ protection: Protection) throws(UserfaultError) {
        _ = try answer(
            to: .rwProtect, circumstance: { explain($0, of: .rwProtect, range, needing: .readWriteProtect) }
        ) {
            cuffd_rwprotect(descriptor.rawValue, UInt64(range.start), UInt64(range.count), protection.rawValue)
        }
    }
}
