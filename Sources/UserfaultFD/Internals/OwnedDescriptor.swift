internal import CUserfaultFD
internal import SystemPackage

/// The one owner of a descriptor: the only type of the library with a `deinit` that closes.
///
/// Types that own a descriptor hold one of these, so that every path out of them, a throwing initialiser included,
/// closes exactly once.
struct OwnedDescriptor: ~Copyable, Sendable {
    let rawValue: Int32

    /// Takes over a descriptor that nobody else will close.
    init(adopting rawValue: Int32) {
        precondition(rawValue >= 0, "a descriptor is never negative: look at the call's answer before adopting it")
        self.rawValue = rawValue
    }

    deinit {
        let answer = cuffd_close(rawValue)
        // The number may belong to somebody else by now, and closing that would be worse than stopping here.
        precondition(
            answer != -Errno.badFileDescriptor.rawValue,
            "descriptor \(rawValue) was closed behind its owner's back: close it through its owner only")
    }

    /// Closes, and says what the kernel answered.
    ///
    /// The descriptor is gone whatever it answered.
    consuming func close() throws(UserfaultError) {
        let descriptor = rawValue
        discard self
        let answer = cuffd_close(descriptor)
        guard answer >= 0 else { throw UserfaultError(.close, answer: answer) }
    }

    /// Gives the descriptor up without closing it.
    consuming func release() -> Int32 {
        let descriptor = rawValue
        discard self
        return descriptor
    }

    /// A second descriptor of the same open file, close-on-exec.
    func duplicate() throws(UserfaultError) -> OwnedDescriptor {
        let answer = cuffd_dup(rawValue)
        guard answer >= 0 else { throw UserfaultError(.duplicate, answer: answer) }
        return OwnedDescriptor(adopting: answer)
    }
}
