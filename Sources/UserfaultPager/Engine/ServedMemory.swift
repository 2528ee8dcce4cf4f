internal import CUserfaultFD
internal import SystemPackage
internal import UserfaultFD

/// One descriptor, what the engine knows of its memory, and the order between the two.
///
/// Fills share the order, and reading events excludes them: the kernel lets a thread that changes its memory go on as
/// soon as the event is *read*, so a fill between reading and taking it in could bring back what was just removed.
/// Without event features only adding and removing regions excludes anything.
@safe
final class ServedMemory: @unchecked Sendable {
    private let order: OpaquePointer
    private let uffd: UnsafeMutablePointer<UserfaultFD>
    private let machine: UnsafeMutablePointer<PagerStateMachine>

    /// Whether reading may bring more than faults.
    let hasEvents: Bool
    /// Whether system calls that touch the memory wait for it as well.
    let handlesKernelFaults: Bool
    let canPoison: Bool
    let rawDescriptor: CInt

    init(_ descriptor: consuming UserfaultFD) throws(PagerError) {
        guard let order = unsafe cuffd_rwlock_create() else { throw .noThread(Errno.noMemory.rawValue) }
        unsafe self.order = order
        hasEvents = !descriptor.enabledFeatures.isDisjoint(with: .events)
        canPoison = descriptor.supportedFeatures.contains(.poison)
        handlesKernelFaults = descriptor.handlesKernelFaults
        rawDescriptor = descriptor.withUnsafeDescriptor { $0.rawValue }
        unsafe uffd = .allocate(capacity: 1)
        unsafe uffd.initialize(to: descriptor)
        unsafe machine = .allocate(capacity: 1)
        do throws(UserfaultError) {
            unsafe machine.initialize(to: try PagerStateMachine())
        } catch {
            unsafe cuffd_rwlock_destroy(order)
            unsafe uffd.deinitialize(count: 1)
            unsafe uffd.deallocate()
            unsafe machine.deallocate()
            throw .kernel(error)
        }
    }

    deinit {
        unsafe cuffd_rwlock_destroy(order)
        unsafe machine.deallocate()
        unsafe uffd.deallocate()
    }

    /// Closes the descriptor and forgets what it served. Once, and when no thread uses it any more.
    ///
    /// What was neither filled nor poisoned reads as zeros from now on: that is for the caller to have seen to.
    func close() {
        unsafe machine.deinitialize(count: 1)
        unsafe uffd.deinitialize(count: 1)
    }

    /// Calls that need no order: waking, polling, registering.
    @inline(__always)
    func withDescriptor<Result, Failure: Error>(
        _ body: (borrowing UserfaultFD) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try unsafe body(uffd.pointee)
    }

    /// Looks up and fills, while nothing changes.
    @inline(__always)
    func sharingOrder<Result, Failure: Error>(
        _ body: (borrowing UserfaultFD, borrowing PagerStateMachine) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        unsafe cuffd_rwlock_read(order)
        defer { unsafe cuffd_rwlock_unlock(order) }
        return try unsafe body(uffd.pointee, machine.pointee)
    }

    /// Takes in changes, while nobody looks up or fills.
    @inline(__always)
    func excludingOthers<Result, Failure: Error>(
        _ body: (borrowing UserfaultFD, inout PagerStateMachine) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        unsafe cuffd_rwlock_write(order)
        defer { unsafe cuffd_rwlock_unlock(order) }
        return try unsafe body(uffd.pointee, &machine.pointee)
    }

    /// Wakes threads that nobody else will. A wake fails for no reason that a caller could mend.
    func wake(_ range: AddressRange) {
        try? withDescriptor { (uffd) throws(UserfaultError) in try uffd.wake(range) }
    }
}
