internal import CUserfaultFD
internal import SystemPackage

extension UserfaultFD {
    /// Registers a range of this descriptor's process, whose faults are reported from now on.
    ///
    /// The range may span several mappings and unmapped gaps; one mapped page is enough. Pages that are there already
    /// make no missing fault. Registering again replaces the modes where the new ones are not a subset; since Linux 7.3
    /// a protection cannot be dropped so (`EBUSY`). The corresponding ioctl is `UFFDIO_REGISTER`. Available since
    /// Linux 4.3.
    ///
    /// - Parameters:
    ///   - range: Page-aligned, not empty; aligned to the huge page on hugetlbfs.
    ///   - modes: What to report; at least one.
    /// - Returns: The ioctls that the kernel knows for ranges of this request. Necessary, not sufficient: see
    ///   ``Ioctls``.
    /// - Throws: ``UserfaultError``: `EINVAL` for a bad range, nothing mapped, memory that cannot be registered so, or
    ///   a mode that the kernel lacks (``UserfaultError/Reason/unsupported``); `EPERM` where the mapping cannot be made
    ///   writable (a read-only file, a sealed memfd); `EBUSY` where another userfaultfd has it; `ENOMEM` also where the
    ///   process is gone or, up to Linux 6.1, nothing is mapped.
    @discardableResult
    public func register(_ range: AddressRange, modes: RegisterModes) throws(UserfaultError) -> Ioctls {
        var ioctls: UInt64 = 0
        let answer = unsafe cuffd_register(
            descriptor.rawValue, UInt64(range.start), UInt64(range.count), modes.rawValue, &ioctls)
        guard answer >= 0 else {
            throw UserfaultError(.register, answer: answer, circumstances: explain(answer, lacking: lacks(modes)))
        }
        return Ioctls(rawValue: ioctls)
    }

    /// Ends the reporting of faults in a range.
    ///
    /// Parts that were never registered are skipped. Protections are removed. Only waiters on a range registered for
    /// ``RegisterModes/missing`` are woken: for the other modes ``wake(_:)`` must follow. The corresponding ioctl is
    /// `UFFDIO_UNREGISTER`. Available since Linux 4.3.
    ///
    /// - Warning: What was not filled reads as zeros from now on.
    /// - Parameter range: Page-aligned, not empty; aligned to the huge page on hugetlbfs.
    /// - Throws: ``UserfaultError``: `EINVAL` for a bad range, nothing mapped, memory that could not be registered, or
    ///   (since Linux 6.17) another userfaultfd's range; `ENOMEM` where the process is gone.
    public func unregister(_ range: AddressRange) throws(UserfaultError) {
        let answer = cuffd_unregister(descriptor.rawValue, UInt64(range.start), UInt64(range.count))
        guard answer >= 0 else {
            throw UserfaultError(.unregister, answer: answer, circumstances: explain(answer))
        }
    }

    /// Wakes every thread that waits for a page of a range; they repeat their access.
    ///
    /// Needed after ``CopyOptions/doNotWake`` and its kin, and after `EEXIST`, which wakes nobody. A page that is still
    /// not there faults again. The corresponding ioctl is `UFFDIO_WAKE`. Available since Linux 4.3.
    ///
    /// - Parameter range: Page-aligned, not empty. On hugetlbfs it must hold the start of the huge page.
    /// - Throws: ``UserfaultError``: `EINVAL` for a bad range. It is no error where nobody waits.
    public func wake(_ range: AddressRange) throws(UserfaultError) {
        let answer = cuffd_wake(descriptor.rawValue, UInt64(range.start), UInt64(range.count))
        guard answer >= 0 else {
            throw UserfaultError(.wake, answer: answer, circumstances: explain(answer))
        }
    }

    /// Turns features on and off on a live descriptor: ``Features/readWriteProtectAsync`` and no other.
    ///
    /// Turning it on wakes every waiter of the descriptor. The corresponding ioctl is `UFFDIO_SET_MODE`. Available
    /// since Linux 7.3.
    ///
    /// - Parameters:
    ///   - enable: The features to turn on.
    ///   - disable: The features to turn off.
    /// - Throws: ``UserfaultError``: `EINVAL` where both sets share a feature, one cannot be switched, or
    ///   ``Features/readWriteProtect`` was not negotiated; `ESRCH` where the process is gone;
    ///   ``UserfaultError/Reason/unsupported`` before Linux 7.3.
    public func setMode(enable: Features = [], disable: Features = []) throws(UserfaultError) {
        let answer = cuffd_set_mode(descriptor.rawValue, enable.rawValue, disable.rawValue)
        guard answer >= 0 else {
            throw UserfaultError(
                .setMode, answer: answer, circumstances: explain(answer, needing: .readWriteProtect))
        }
    }
}

extension UserfaultFD {
    /// What else is known of an error: an `EINVAL` may mean that the kernel lacks the call.
    ///
    /// - Parameters:
    ///   - needed: The features of which the call needs at least one; empty where every kernel has the call.
    ///   - lacking: Whether the kernel is known to lack what was asked for.
    @inline(never)
    func explain(
        _ answer: CInt, needing needed: Features = [], lacking: Bool = false
    ) -> UserfaultError.Circumstances {
        guard answer == -Errno.invalidArgument.rawValue else { return [] }
        if !isNegotiated { return .notNegotiated }
        if lacking || (!needed.isEmpty && supportedFeatures.isDisjoint(with: needed)) { return .kernelLacksIt }
        return []
    }

    /// Whether the kernel has no memory of any kind that could be registered so.
    private func lacks(_ modes: RegisterModes) -> Bool {
        let minor: Features = [.minorShmem, .minorHugetlbfs]
        return (modes.contains(.writeProtect) && !supportedFeatures.contains(.writeProtect))
            || (modes.contains(.minor) && supportedFeatures.isDisjoint(with: minor))
            || (modes.contains(.readWriteProtect) && !supportedFeatures.contains(.readWriteProtect))
    }
}
