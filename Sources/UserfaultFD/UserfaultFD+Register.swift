internal import CUserfaultFD

extension UserfaultFD {
    /// Registers a range of this descriptor's process, whose faults are reported from now on.
    ///
    /// The range may span several mappings and unmapped gaps; one mapped page is enough. Pages that are there already
    /// make no missing fault. Registering again replaces the modes if the new ones are not a subset; since Linux 7.3 a
    /// protection cannot be dropped that way (`EBUSY`). Unprotect the pages first: before Linux 7.3, a write to a page of
    /// hugetlbfs that was protected never ends otherwise. The corresponding ioctl is `UFFDIO_REGISTER`. Available since
    /// Linux 4.3.
    ///
    /// - Parameters:
    ///   - range: Page-aligned, not empty; aligned to the huge page on hugetlbfs.
    ///   - modes: What to report; at least one.
    /// - Returns: The ioctls that the kernel knows for ranges of this request. Necessary, not sufficient: see
    ///   ``Ioctls``.
    /// - Throws: ``UserfaultError``: `EINVAL` for a bad range, nothing mapped, memory that cannot be registered so, or
    ///   a mode that the kernel does not have (``UserfaultError/Reason/unsupported``); `EPERM` if the mapping cannot be
    ///   made writable (a read-only file, a sealed memfd); `EBUSY` if another userfaultfd has it; `ENOMEM`, after
    ///   which mappings at the start of the range may be registered; also if the process is gone or, up to Linux 6.1,
    ///   nothing is mapped.
    @discardableResult
    public func register(_ range: AddressRange, modes: RegisterModes) throws(UserfaultError) -> Ioctls {
        var ioctls: UInt64 = 0
        _ = try answer(
            to: .register, circumstance: { explain($0, of: .register, range, lacking: { Self.lacks($0, modes) }) }
        ) {
            unsafe cuffd_register(
                descriptor.rawValue, UInt64(range.start), UInt64(range.count), modes.rawValue, &ioctls)
        }
        return Ioctls(rawValue: ioctls)
    }

    /// Ends the reporting of faults in a range.
    ///
    /// Parts that were never registered are skipped. Protections are removed. Only threads that wait in a range registered
    /// for ``RegisterModes/missing`` are woken: for the other modes call ``wake(_:)`` afterwards. The corresponding ioctl is
    /// `UFFDIO_UNREGISTER`. Available since Linux 4.3.
    ///
    /// - Warning: What was not filled reads as zeros from now on.
    /// - Parameter range: Page-aligned, not empty; aligned to the huge page on hugetlbfs.
    /// - Throws: ``UserfaultError``: `EINVAL` for a bad range, nothing mapped, memory that could not be registered, or
    ///   (since Linux 6.17) another userfaultfd's range; `ENOMEM` if the process is gone.
    public func unregister(_ range: AddressRange) throws(UserfaultError) {
        _ = try answer(to: .unregister, circumstance: { explain($0, of: .unregister, range) }) {
            cuffd_unregister(descriptor.rawValue, UInt64(range.start), UInt64(range.count))
        }
    }

    /// Wakes every thread that waits for a page of a range; they repeat their access.
    ///
    /// Call it after ``CopyOptions/doNotWake`` and the like, and after `EEXIST`, which wakes nobody. A page that is still
    /// not there faults again. The corresponding ioctl is `UFFDIO_WAKE`. Available since Linux 4.3.
    ///
    /// - Parameter range: Page-aligned, not empty. On hugetlbfs it must hold the start of the huge page.
    /// - Throws: ``UserfaultError``: `EINVAL` for a bad range. It is no error if no thread waits.
    public func wake(_ range: AddressRange) throws(UserfaultError) {
        _ = try answer(to: .wake, circumstance: { explain($0, of: .wake, range) }) {
            cuffd_wake(descriptor.rawValue, UInt64(range.start), UInt64(range.count))
        }
    }

    /// Turns features on and off on a live descriptor: ``Features/readWriteProtectAsync`` and no other.
    ///
    /// Turning it on wakes every thread that waits for the descriptor. The corresponding ioctl is `UFFDIO_SET_MODE`. Available
    /// since Linux 7.3.
    ///
    /// - Parameters:
    ///   - enable: The features to turn on.
    ///   - disable: The features to turn off.
    /// - Throws: ``UserfaultError``: `EINVAL` if both sets share a feature, one cannot be switched, or
    ///   ``Features/readWriteProtect`` was not negotiated; `ESRCH` if the process is gone;
    ///   ``UserfaultError/Reason/unsupported`` before Linux 7.3.
    public func setMode(enable: Features = [], disable: Features = []) throws(UserfaultError) {
        let nowhere = AddressRange(start: 0, count: 0)
        _ = try answer(
            to: .setMode, circumstance: { explain($0, of: .setMode, nowhere, needing: .readWriteProtect) }
        ) {
            cuffd_set_mode(descriptor.rawValue, enable.rawValue, disable.rawValue)
        }
    }
}

extension UserfaultFD {
    /// Whether a kernel has no memory of any kind that could be registered so.
    private static func lacks(_ features: Features, _ modes: RegisterModes) -> Bool {
        (modes.contains(.writeProtect) && !features.contains(.writeProtect))
            || (modes.contains(.minor) && features.isDisjoint(with: .minorFaults))
            || (modes.contains(.readWriteProtect) && !features.contains(.readWriteProtect))
    }
}
