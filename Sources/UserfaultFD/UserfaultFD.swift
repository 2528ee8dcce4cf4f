internal import CUserfaultFD
public import SystemPackage

/// A userfaultfd: the kernel's page faults on registered memory, handled by this program.
///
/// The value owns its descriptor. It is tied for ever to the memory of the process that opened it. To share it between
/// threads, hold it in a `let` of a `final class`; all methods but ``negotiate(_:)`` may be called from any number of
/// threads at once.
///
/// - Warning: Closing the last descriptor, which dropping the value does, releases every waiter as if there had been no
///   userfaultfd: pages that were never filled read as **zeros**. Resolve, populate or poison first.
public struct UserfaultFD: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor

    /// The features that are in force.
    ///
    /// Empty before ``negotiate(_:)``.
    public private(set) var enabledFeatures: Features

    /// Every feature that this kernel has, on this architecture.
    ///
    /// Empty before ``negotiate(_:)``.
    public private(set) var supportedFeatures: Features

    /// Whether ``negotiate(_:)`` has succeeded: before that every other call answers `EINVAL`.
    public private(set) var isNegotiated: Bool

    /// Whether faults of the kernel are handled, or only those of user-mode code.
    public let handlesKernelFaults: Bool

    /// Opens a userfaultfd and negotiates its features.
    ///
    /// Asking for a feature that the kernel lacks fails as a whole; ``KernelSupport/probe()`` or a first descriptor's
    /// ``supportedFeatures`` tells what there is. The corresponding calls are `userfaultfd(2)` or
    /// `USERFAULTFD_IOC_NEW`, then `UFFDIO_API`. Available since Linux 4.3.
    ///
    /// - Parameters:
    ///   - features: The features to enable.
    ///   - options: How to open; by default for user-mode faults only, close-on-exec, non-blocking.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/open``: `EPERM` where kernel-mode faults are asked for
    ///   without the privilege, with what each way answered; `ENOSYS` where the kernel has no userfaultfd; `EMFILE`.
    ///   Of ``UserfaultError/Operation/negotiate``: as ``negotiate(_:)``.
    public init(features: Features = [], options: OpenOptions = OpenOptions()) throws(UserfaultError) {
        var opened = try UserfaultFD(unnegotiated: options)
        try opened.negotiate(features)
        self = opened
    }

    /// Opens a userfaultfd whose features are to be negotiated later.
    ///
    /// - Parameter options: How to open.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/open``, as ``init(features:options:)``.
    public init(unnegotiated options: OpenOptions) throws(UserfaultError) {
        let opened = try Opening.open(options)
        self.init(
            descriptor: opened.descriptor, enabled: [], supported: [], isNegotiated: false,
            handlesKernelFaults: opened.handlesKernelFaults)
    }

    init(
        descriptor: consuming OwnedDescriptor,
        enabled: Features,
        supported: Features,
        isNegotiated: Bool,
        handlesKernelFaults: Bool
    ) {
        self.descriptor = descriptor
        self.enabledFeatures = enabled
        self.supportedFeatures = supported
        self.isNegotiated = isNegotiated
        self.handlesKernelFaults = handlesKernelFaults
    }

    /// Takes over a userfaultfd that somebody else opened: inherited, or received from another process.
    ///
    /// What is enabled is read from `/proc/self/fdinfo`; what the kernel supports is found with a descriptor of this
    /// process' own, or where it may not open one from the ioctls that the kernel has.
    ///
    /// - Parameters:
    ///   - rawDescriptor: An open descriptor that nobody else will close. It is closed where this throws.
    ///   - handlesKernelFaults: Whether it was opened for kernel-mode faults too; the kernel does not tell.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/status`` with `EINVAL` where the descriptor is not a
    ///   userfaultfd, or with what `/proc` answered.
    public init(adopting rawDescriptor: Int32, handlesKernelFaults: Bool = false) throws(UserfaultError) {
        let owned = OwnedDescriptor(adopting: rawDescriptor)
        let status = try Status(of: owned.rawValue)
        let supported = (try? UserfaultFD())?.supportedFeatures ?? status.features.union(status.ioctls.impliedFeatures)
        self.init(
            descriptor: owned, enabled: status.features, supported: supported, isNegotiated: status.isNegotiated,
            handlesKernelFaults: handlesKernelFaults)
    }

    /// Negotiates the features, which can be done once; a call that fails has changed nothing and may be repeated.
    ///
    /// The corresponding ioctl is `UFFDIO_API`. Available since Linux 4.3.
    ///
    /// - Parameter features: The features to enable.
    /// - Returns: The ioctls that the kernel has for descriptors (not for ranges).
    /// - Throws: ``UserfaultError``: `EINVAL` where the kernel lacks a feature (``UserfaultError/Reason/unsupported``;
    ///   it does not say which) or the descriptor is negotiated already
    ///   (``UserfaultError/Reason/alreadyNegotiated``), or for ``Features/readWriteProtectAsync`` alone; `EPERM` for ``Features/eventFork`` without `CAP_SYS_PTRACE`.
    @discardableResult
    public mutating func negotiate(_ features: Features = []) throws(UserfaultError) -> Ioctls {
        var supported: UInt64 = 0
        var ioctls: UInt64 = 0
        let answer = unsafe cuffd_api(descriptor.rawValue, features.rawValue, &supported, &ioctls)
        guard answer >= 0 else {
            throw UserfaultError(.negotiate, answer: answer, circumstances: refusal(answer, of: features))
        }
        supportedFeatures = Features(rawValue: supported)
        enabledFeatures = features.contains(.writeProtectAsync) ? features.union(.writeProtectUnpopulated) : features
        isNegotiated = true
        return Ioctls(rawValue: ioctls)
    }

    /// What `EINVAL` means to `UFFDIO_API`, which never says what displeased it.
    private func refusal(_ answer: CInt, of features: Features) -> UserfaultError.Circumstances {
        guard answer == -Errno.invalidArgument.rawValue else { return [] }
        // Asked anew, because another descriptor of the same kernel object may have negotiated meanwhile.
        if isNegotiated || (try? status())?.isNegotiated == true { return .alreadyNegotiated }
        let wantsAsyncAlone = features.contains(.readWriteProtectAsync) && !features.contains(.readWriteProtect)
        return wantsAsyncAlone ? [] : .kernelLacksIt
    }

    /// Closes the descriptor, and says what the kernel answered.
    ///
    /// - Warning: Where this was the last descriptor, waiters go on as if there had been no userfaultfd, and read zeros
    ///   where nothing was filled. A call of another thread on the same descriptor delays that until it returns.
    /// - Throws: ``UserfaultError``; the descriptor is gone all the same.
    public consuming func close() throws(UserfaultError) {
        try descriptor.close()
    }

    /// Gives the descriptor up without closing it: the caller owns it from now on.
    public consuming func release() -> Int32 {
        descriptor.release()
    }

    /// A second userfaultfd value of the same kernel object.
    ///
    /// The registrations live until both are closed: what a guardian holds so that a crash does not turn pages to zeros.
    ///
    /// - Throws: ``UserfaultError`` with `EMFILE`.
    public func duplicate() throws(UserfaultError) -> UserfaultFD {
        UserfaultFD(
            descriptor: try descriptor.duplicate(), enabled: enabledFeatures, supported: supportedFeatures,
            isNegotiated: isNegotiated, handlesKernelFaults: handlesKernelFaults)
    }

    /// Lends the descriptor for a call that this library does not have, `epoll_ctl(2)` for example.
    ///
    /// The closure must not close it, nor keep it.
    public func withUnsafeDescriptor<Result: ~Copyable, Failure: Error>(
        _ body: (FileDescriptor) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try body(FileDescriptor(rawValue: descriptor.rawValue))
    }
}
