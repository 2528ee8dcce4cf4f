public import SystemPackage

/// What was asked of the kernel, what it answered, and how far it got: 16 bytes, without heap.
///
/// ``errno`` is the kernel's own answer. ``reason`` says what it means for this operation, because one number means
/// different things to different calls: `EAGAIN` alone has three meanings.
public struct UserfaultError: Error, Hashable, Sendable {
    /// What was asked.
    public let operation: Operation

    /// What is known beside the kernel's answer.
    let circumstance: Circumstance

    /// For ``Operation/open``: what each way answered, 0 if it was not tried.
    private let systemCallErrno: UInt8
    private let deviceErrno: UInt8

    /// What the kernel answered.
    public let errno: Errno

    /// The bytes that were completed before the failure.
    ///
    /// For the calls that fill pages it is more than 0 only if ``reason`` is ``Reason/partial``: continue after that many
    /// bytes of the range, and the next call reports why it stopped. For calls that transfer bytes, such as
    /// ``Memfd/write(_:at:)`` and ``DescriptorPassing/send(_:descriptors:over:)``, it is what was transferred, whatever
    /// the reason.
    public let bytesCompleted: Int

    init(
        _ operation: Operation,
        errno: Errno,
        bytesCompleted: Int = 0,
        circumstance: Circumstance = .none
    ) {
        self.operation = operation
        self.circumstance = circumstance
        self.systemCallErrno = 0
        self.deviceErrno = 0
        self.errno = errno
        self.bytesCompleted = bytesCompleted
    }

    /// An error from opening; the answers are `-errno`, or 0 for a way that was not tried.
    init(opening systemCallAnswer: CInt, device deviceAnswer: CInt, userModeOnly: Bool) {
        operation = .open
        circumstance = userModeOnly ? .userModeOnly : .none
        systemCallErrno = UInt8(clamping: -systemCallAnswer)
        deviceErrno = UInt8(clamping: -deviceAnswer)
        // If both were tried the system call's answer comes first: it exists on every kernel.
        errno = Errno(rawValue: systemCallAnswer != 0 ? -systemCallAnswer : -deviceAnswer)
        bytesCompleted = 0
    }

    /// What the system call `userfaultfd(2)` answered, if opening tried it.
    public var systemCallAnswer: Errno? {
        systemCallErrno == 0 ? nil : Errno(rawValue: CInt(systemCallErrno))
    }

    /// What `/dev/userfaultfd` answered, if opening tried it.
    public var deviceAnswer: Errno? {
        deviceErrno == 0 ? nil : Errno(rawValue: CInt(deviceErrno))
    }
}

extension UserfaultError {
    /// What is known beside the kernel's answer.
    enum Circumstance: UInt8, Hashable, Sendable {
        case none
        /// The kernel does not have what was asked for, so its `EINVAL` means just that.
        case kernelLacksIt
        /// The descriptor was not negotiated, so `EINVAL` says nothing about the arguments.
        case notNegotiated
        /// The descriptor was negotiated already, which can be done once.
        case alreadyNegotiated
        /// The peer ended the stream.
        case peerClosed
        /// A message came without the descriptor it was to carry.
        case noDescriptor
        /// The destination of a move is there, so its `ENOENT` is about the source.
        case noSourcePage
        /// The destination of a copy may be a huge page, so its `EEXIST` may mean that there is none left.
        case poolMayBeEmpty
        /// The descriptor is in blocking mode, which `poll` does not support.
        case blockingMode
        /// Opening asked for user-mode faults only, which the kernel's own rules allow everybody.
        case userModeOnly
        /// The file does not live in memory.
        case notMemoryFile
    }
}

extension UserfaultError {
    /// What was asked of the kernel.
    ///
    /// Operations may be added: include a `default` case when you switch over them.
    public struct Operation: Hashable, Sendable {
        let rawValue: UInt8

        /// `userfaultfd(2)`, or `/dev/userfaultfd`.
        public static var open: Operation { Operation(rawValue: 1) }
        /// `UFFDIO_API`.
        public static var negotiate: Operation { Operation(rawValue: 2) }
        /// `UFFDIO_REGISTER`.
        public static var register: Operation { Operation(rawValue: 3) }
        /// `UFFDIO_UNREGISTER`.
        public static var unregister: Operation { Operation(rawValue: 4) }
        /// `UFFDIO_WAKE`.
        public static var wake: Operation { Operation(rawValue: 5) }
        /// `UFFDIO_COPY`.
        public static var copy: Operation { Operation(rawValue: 6) }
        /// `UFFDIO_ZEROPAGE`.
        public static var zeropage: Operation { Operation(rawValue: 7) }
        /// `UFFDIO_MOVE`.
        public static var move: Operation { Operation(rawValue: 8) }
        /// `UFFDIO_WRITEPROTECT`.
        public static var writeProtect: Operation { Operation(rawValue: 9) }
        /// `UFFDIO_CONTINUE`.
        public static var `continue`: Operation { Operation(rawValue: 10) }
        /// `UFFDIO_POISON`.
        public static var poison: Operation { Operation(rawValue: 11) }
        /// `UFFDIO_RWPROTECT`.
        public static var rwProtect: Operation { Operation(rawValue: 12) }
        /// `UFFDIO_SET_MODE`.
        public static var setMode: Operation { Operation(rawValue: 13) }
        /// `read(2)` of messages.
        public static var read: Operation { Operation(rawValue: 14) }
        /// `poll(2)`.
        public static var poll: Operation { Operation(rawValue: 15) }
        /// `close(2)`.
        public static var close: Operation { Operation(rawValue: 16) }
        /// `fcntl(2)`: a second descriptor.
        public static var duplicate: Operation { Operation(rawValue: 17) }
        /// `fcntl(2)`: blocking or not.
        public static var configure: Operation { Operation(rawValue: 18) }
        /// `/proc/self/fdinfo`: the descriptor's state.
        public static var status: Operation { Operation(rawValue: 19) }
        /// `sendmsg(2)` with descriptors.
        public static var send: Operation { Operation(rawValue: 20) }
        /// `recvmsg(2)` with descriptors.
        public static var receive: Operation { Operation(rawValue: 21) }
        /// `SO_PEERCRED`.
        public static var peerCredentials: Operation { Operation(rawValue: 22) }
        /// An ``AddressRange`` was made; the kernel was not asked.
        public static var range: Operation { Operation(rawValue: 23) }
        /// `mmap(2)`.
        public static var map: Operation { Operation(rawValue: 24) }
        /// `munmap(2)`.
        public static var unmap: Operation { Operation(rawValue: 25) }
        /// `mremap(2)`.
        public static var remap: Operation { Operation(rawValue: 26) }
        /// `mprotect(2)`.
        public static var protect: Operation { Operation(rawValue: 27) }
        /// `madvise(2)`.
        public static var advise: Operation { Operation(rawValue: 28) }
        /// `memfd_create(2)`.
        public static var createMemfd: Operation { Operation(rawValue: 29) }
        /// `ftruncate(2)`.
        public static var resize: Operation { Operation(rawValue: 30) }
        /// `fallocate(2)`.
        public static var allocate: Operation { Operation(rawValue: 31) }
        /// `fcntl(2)`: seals.
        public static var seal: Operation { Operation(rawValue: 32) }
        /// `fstat(2)`.
        public static var fileStatus: Operation { Operation(rawValue: 33) }
        /// `pread(2)` of a memory file.
        public static var readFile: Operation { Operation(rawValue: 34) }
        /// `pwrite(2)` to a memory file.
        public static var writeFile: Operation { Operation(rawValue: 35) }
        /// `PAGEMAP_SCAN`, or the opening of `/proc/PID/pagemap` for it.
        public static var pagemapScan: Operation { Operation(rawValue: 36) }
        /// A descriptor was to be adopted that somebody else opened.
        public static var adopt: Operation { Operation(rawValue: 50) }
        /// `eventfd(2)`.
        public static var eventFD: Operation { Operation(rawValue: 37) }
        /// `epoll_create1(2)`, `epoll_ctl(2)` or `epoll_wait(2)`.
        public static var pollSet: Operation { Operation(rawValue: 38) }
        /// `pidfd_open(2)`, or `SO_PEERPIDFD`.
        public static var openProcess: Operation { Operation(rawValue: 39) }
        /// `pidfd_send_signal(2)`.
        public static var signalProcess: Operation { Operation(rawValue: 40) }
        /// `pidfd_getfd(2)`.
        public static var takeDescriptor: Operation { Operation(rawValue: 41) }
        /// `process_madvise(2)`.
        public static var adviseProcess: Operation { Operation(rawValue: 42) }
        /// `mincore(2)`.
        public static var residency: Operation { Operation(rawValue: 43) }
        /// `open(2)` of a file.
        public static var openFile: Operation { Operation(rawValue: 44) }
        /// `mlock(2)` or `munlock(2)`.
        public static var lockMemory: Operation { Operation(rawValue: 45) }
        /// `process_vm_writev(2)` to this process.
        public static var storeMemory: Operation { Operation(rawValue: 46) }
        /// A call on Unix sockets.
        public static var socket: Operation { Operation(rawValue: 47) }
        /// A thread was to be made.
        public static var createThread: Operation { Operation(rawValue: 48) }
        /// A lock was to be made.
        public static var createLock: Operation { Operation(rawValue: 49) }
        /// A handler of a signal was to be installed.
        public static var handleSignal: Operation { Operation(rawValue: 51) }
    }
}
