internal import CUserfaultFD
internal import SystemPackage

/// The one owner of a descriptor.
///
/// Types that own descriptors are composed of these, so that every way out of them, a throwing initializer included,
/// closes exactly once. Only fixed arrays of raw descriptors, such as ``ReceivedDescriptors`` and ``EventBatch``, close
/// what nobody took in a `deinit` of their own, by making one of these for each.
package struct OwnedDescriptor: ~Copyable, Sendable {
    package let rawValue: Int32

    /// Takes over a descriptor that nobody else will close.
    package init(adopting rawValue: Int32) {
        precondition(rawValue >= 0, "a descriptor is never negative: check the call's answer before adopting it")
        self.rawValue = rawValue
    }

    deinit {
        let answer = cuffd_close(rawValue)
        // The number may belong to somebody else by now, and closing that would be worse than stopping here.
        precondition(
            answer != -Errno.badFileDescriptor.rawValue,
            "descriptor \(rawValue) was closed behind its owner's back: close it through its owner only")
    }

    /// Closes, and reports what the kernel answered.
    ///
    /// The descriptor is gone whatever the answer: `close(2)` must never be repeated, after `EINTR` least of all.
    package consuming func close() throws(UserfaultError) {
        let descriptor = rawValue
        discard self
        _ = try answer(to: .close) { cuffd_close(descriptor) }
    }

    /// Gives the descriptor up without closing it.
    package consuming func release() -> Int32 {
        let descriptor = rawValue
        discard self
        return descriptor
    }

    /// A second descriptor of the same open file, close-on-exec.
    package func duplicate() throws(UserfaultError) -> OwnedDescriptor {
        try OwnedDescriptor(duplicating: rawValue)
    }

    /// A second descriptor, close-on-exec, of an open file that somebody else owns.
    package init(duplicating rawValue: Int32) throws(UserfaultError) {
        self.init(adopting: try answer(to: .duplicate) { cuffd_dup(rawValue) })
    }

    /// Opens a file; close-on-exec is always set.
    package init(
        opening path: String, flags: Int32 = CUFFD_O_RDONLY, for operation: UserfaultError.Operation = .openFile
    ) throws(UserfaultError) {
        let flags = flags | CUFFD_O_CLOEXEC
        self.init(
            adopting: try answer(to: operation, retryOnInterrupt: true) { unsafe cuffd_open(path, flags) })
    }
}
