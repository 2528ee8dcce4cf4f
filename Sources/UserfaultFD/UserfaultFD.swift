internal import CUserfaultFD
public import SystemPackage

/// A userfaultfd: the kernel's page faults on registered memory, handled by this program.
///
/// The value owns its descriptor, which is tied forever to the memory of the process that opened it. To share it between
/// threads, hold it in a `let` of a `final class`; all methods but ``negotiate(_:)`` may be called from any number of
/// threads at once.
///
/// The module and this type have the same name. If another module has a type with a name of this one's, `Mapping` for
/// example, qualify it with a module selector: `UserfaultFD::Mapping`.
///
/// - Warning: Closing the last descriptor, which dropping the value does, releases all waiting threads as if there had
///   been no userfaultfd: pages that were never filled read as **zeros**. Resolve, populate or poison first.
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

    /// Whether ``supportedFeatures`` is everything that the kernel has, and not only what could be found out.
    private(set) var knowsAllFeatures: Bool

    /// Whether this value was negotiated: before that every other call fails with `EINVAL`.
    public private(set) var isNegotiated: Bool

    /// Whether faults of the kernel are handled, or only those of user-mode code.
    public let handlesKernelFaults: Bool

    /// See ``holdingPlace(of:)``.
    package var holdingPlace: UInt32

    /// Opens a userfaultfd and negotiates its features.
    ///
    /// Asking for a feature that the kernel does not have fails as a whole; ``KernelSupport/probe()`` or a first
    /// descriptor's ``supportedFeatures`` tells what there is. The corresponding calls are `userfaultfd(2)` or
    /// `USERFAULTFD_IOC_NEW`, then `UFFDIO_API`. Available since Linux 4.3.
    ///
    /// - Parameters:
    ///   - features: The features to enable.
    ///   - options: How to open; by default for user-mode faults only, close-on-exec, non-blocking.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/open``: `EPERM` if kernel-mode faults are asked for
    ///   without the privilege, with what each way answered; `ENOSYS` if the kernel has no userfaultfd; `EMFILE`.
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
        handlesKernelFaults: Bool,
        knowsAllFeatures: Bool = true
    ) {
        self.descriptor = descriptor
        self.enabledFeatures = enabled
        self.supportedFeatures = supported
        self.isNegotiated = isNegotiated
        self.handlesKernelFaults = handlesKernelFaults
        holdingPlace = 0
        self.knowsAllFeatures = knowsAllFeatures
    }

    /// Takes over a userfaultfd that somebody else opened: inherited, or received from another process.
    ///
    /// Without `features`, what is enabled is read from `/proc/self/fdinfo`, which needs `/proc` and a descriptor to
    /// spare. What the kernel supports is found with a descriptor of this process' own, or, if it may not open one, taken
    /// from what is enabled and from the ioctls that the kernel has.
    ///
    /// - Parameters:
    ///   - rawDescriptor: An open descriptor that nobody else will close. It stays open, and yours, if this throws.
    ///   - features: What is enabled, if you know: what the sender says it negotiated. Nothing is read from `/proc` then.
    ///   - handlesKernelFaults: Whether it was opened for kernel-mode faults too; the kernel does not tell.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/adopt``: `EBADF` if the descriptor is not open, `ENOTTY`
    ///   if it is no userfaultfd. Of ``UserfaultError/Operation/status``, without `features`: `ENOENT` if `/proc` is not
    ///   mounted, `EMFILE`.
    public init(
        adopting rawDescriptor: Int32, features: Features? = nil, handlesKernelFaults: Bool = false
    ) throws(UserfaultError) {
        let condition = Self.wakeNobody(rawDescriptor)
        if let condition, condition != .invalidArgument { throw UserfaultError(.adopt, errno: condition) }
        // Other devices answer EINVAL to requests that they do not know. One that is not negotiated always has an error.
        if condition != nil, try !PairReadiness(of: rawDescriptor, -1, until: Deadline(after: .zero)).first.hasError {
            throw UserfaultError(.adopt, errno: .inappropriateIOCTLForDevice)
        }
        var enabled = features ?? []
        var known = enabled
        if features == nil {
            let status = try Status(of: rawDescriptor)
            enabled = status.features
            known = status.features.union(status.ioctls.impliedFeatures)
        }
        // Nothing fails from here on: the descriptor is this value's.
        let isNegotiated = condition == nil
        let kernel = Self.kernelFeatures
        self.init(
            descriptor: OwnedDescriptor(adopting: rawDescriptor), enabled: isNegotiated ? enabled : [],
            supported: isNegotiated ? kernel ?? known : [], isNegotiated: isNegotiated,
            handlesKernelFaults: handlesKernelFaults, knowsAllFeatures: kernel != nil)
    }

    /// Uses a userfaultfd that somebody else owns, without taking it over.
    ///
    /// - Parameters:
    ///   - descriptor: An open, negotiated userfaultfd that stays open while the closure runs.
    ///   - features: What is enabled in it.
    ///   - handlesKernelFaults: Whether it was opened for kernel-mode faults too.
    ///   - body: What uses it.
    /// - Precondition: the descriptor's number is not negative.
    public static func withBorrowed<Result: ~Copyable, Failure: Error>(
        _ descriptor: FileDescriptor, features: Features, handlesKernelFaults: Bool = false,
        _ body: (borrowing UserfaultFD) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let kernel = kernelFeatures
        let borrowed = UserfaultFD(
            descriptor: OwnedDescriptor(adopting: descriptor.rawValue), enabled: features,
            supported: kernel ?? features, isNegotiated: true, handlesKernelFaults: handlesKernelFaults,
            knowsAllFeatures: kernel != nil)
        // The result, thrown or not, is kept until the descriptor was given back.
        let result: Swift.Result<Result, Failure>
        do throws(Failure) {
            result = .success(try body(borrowed))
        } catch {
            result = .failure(error)
        }
        _ = borrowed.release()
        return try result.get()
    }

    /// Negotiates the features, which can be done once; a call that fails has changed nothing and may be repeated.
    ///
    /// The corresponding ioctl is `UFFDIO_API`. Available since Linux 4.3.
    ///
    /// - Parameter features: The features to enable.
    /// - Returns: The ioctls that the kernel has for descriptors (not for ranges).
    /// - Throws: ``UserfaultError``: `EINVAL` if the kernel does not have a feature
    ///   (``UserfaultError/Reason/unsupported``; it does not say which), if the descriptor is negotiated already
    ///   (``UserfaultError/Reason/alreadyNegotiated``), or for ``Features/readWriteProtectAsync`` alone; `EPERM` for
    ///   ``Features/eventFork`` without `CAP_SYS_PTRACE`.
    @discardableResult
    public mutating func negotiate(_ features: Features = []) throws(UserfaultError) -> Ioctls {
        var supported: UInt64 = 0
        var ioctls: UInt64 = 0
        _ = try answer(to: .negotiate, circumstance: { refusal($0, of: features) }) {
            unsafe cuffd_api(descriptor.rawValue, features.rawValue, &supported, &ioctls)
        }
        supportedFeatures = Features(rawValue: supported)
        enabledFeatures = features.contains(.writeProtectAsync) ? features.union(.writeProtectUnpopulated) : features
        isNegotiated = true
        if features.contains(.eventFork) { rehearse() }
        return Ioctls(rawValue: ioctls)
    }

    /// What `EINVAL` means to `UFFDIO_API`, which never says what was wrong.
    private func refusal(_ errno: Errno, of features: Features) -> UserfaultError.Circumstance {
        guard errno == .invalidArgument else { return .none }
        // Asked again, because another descriptor of the same kernel object may have negotiated meanwhile.
        if Self.isNegotiated(descriptor.rawValue) { return .alreadyNegotiated }
        let wantsAsyncAlone = features.contains(.readWriteProtectAsync) && !features.contains(.readWriteProtect)
        guard wantsAsyncAlone else { return features.isEmpty ? .none : .kernelLacksIt }
        // Every kernel refuses this one; those that do not have the feature at all refuse it for that.
        guard let kernel = Self.kernelFeatures else { return .none }
        return kernel.isSuperset(of: features) ? .none : .kernelLacksIt
    }

    /// Closes the descriptor, and reports what the kernel answered.
    ///
    /// - Warning: If this was the last descriptor, waiting threads go on as if there had been no userfaultfd, and read
    ///   zeros where nothing was filled. A call of another thread on the same descriptor delays that until it returns.
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
            isNegotiated: isNegotiated, handlesKernelFaults: handlesKernelFaults, knowsAllFeatures: knowsAllFeatures)
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
