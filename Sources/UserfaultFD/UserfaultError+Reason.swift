internal import SystemPackage

extension UserfaultError {
    /// What the kernel's answer means for the operation that got it, and so what to do.
    ///
    /// Reasons may be added: a `switch` that names all of them includes an `@unknown default` case.
    @nonexhaustive
    public enum Reason: Hashable, Sendable {
        /// `EEXIST`: the page at the start of the range is there already. Nobody was woken: call
        /// ``UserfaultFD/wake(_:)``, then treat the fault as resolved.
        case alreadyMapped

        /// `EEXIST` from `UFFDIO_COPY` to a range that may be hugetlbfs: either the page is there already, or, since Linux
        /// 6.18, the pool has no huge page left. The answer does not tell which. Wake the threads that wait; if one of
        /// them faults on the same page again, ask ``PagemapScan/isPopulated(_:)`` of that process, and treat a page that
        /// is not there as ``noMemory``. Never wake and retry without a limit.
        case alreadyMappedOrPoolEmpty

        /// `EAGAIN` without progress: the mapping is changing. If events are enabled, one may be on its way, and the call
        /// fails until it is read. Read what there is, without waiting for more, and try again: the cause may also be a
        /// lock that is free in a moment.
        case mappingIsChanging

        /// `EAGAIN` with progress: the first ``UserfaultError/bytesCompleted`` bytes are done, and the threads that waited
        /// for them are woken. Continue after them, and the next call reports why it stopped.
        case partial

        /// `ENOENT`: nothing registered is mapped there, or the range leaves its mapping. Drop the work, or split it
        /// where one mapping ends.
        case noSuchRange

        /// `ENOENT` from `UFFDIO_MOVE`: the destination is there, but the source has no page: a page that was never written,
        /// which reads as zeros, so that ``UserfaultFD/zeropage(_:options:)`` resolves the fault; or an address at which
        /// nothing is mapped, which the kernel does not tell apart.
        case noSourcePage

        /// `ESRCH`: the process whose memory this is has exited or executed another program. End quietly.
        case processGone

        /// `ENOMEM` or `ENOSPC`: no memory, a limit of the memory cgroup, or a full tmpfs. `EAGAIN` from calls on mappings
        /// and threads: a limit of locked memory or of threads. From `UFFDIO_COPY` and
        /// `UFFDIO_ZEROPAGE` on shared memory also a range past the end of the file, since Linux 7.1. From
        /// `UFFDIO_REGISTER` and `UFFDIO_UNREGISTER` also that the process is gone or, up to Linux 6.1, that nothing is
        /// mapped.
        case noMemory

        /// `EPERM` or `EACCES`: not allowed. The error's description says what would allow it.
        case notPermitted

        /// The kernel does not have this call, feature or mode.
        case unsupported

        /// `EINVAL`: a range that is empty or not aligned, a combination of flags, or memory of the wrong kind.
        case invalidArgument

        /// `EINVAL` because ``UserfaultFD/negotiate(_:)`` was not called yet.
        case notNegotiated

        /// `EINVAL` because the descriptor was negotiated before, which can be done once.
        case alreadyNegotiated

        /// `EINVAL` from ``UserfaultFD/poll(timeout:)``: the descriptor is in blocking mode. Call
        /// ``UserfaultFD/setNonBlocking(_:)`` first.
        case blockingMode

        /// `EFAULT`: the source cannot be read, or the range lies past the end of its file.
        case badAddress

        /// `EFAULT` from `UFFDIO_CONTINUE`: the file has no page at the start of the range. Fill it, or use
        /// `UFFDIO_COPY`. For a range past the end of the file it is `EINVAL` up to Linux 7.0.
        case noPageInFile

        /// `EBUSY`: for `UFFDIO_REGISTER` another userfaultfd has the range, or (Linux 7.3) a protection would be
        /// lost; for `UFFDIO_MOVE` the source page is shared or pinned, so copy it instead.
        case busy

        /// `EIO`: the page's memory is broken.
        case brokenMemory

        /// `EINTR`: a signal ended the call; for the calls that fill pages only a fatal one does.
        case interrupted

        /// `EAGAIN` from a descriptor in non-blocking mode: nothing is there to read.
        case wouldBlock

        /// `EMFILE` or `ENFILE`: no free descriptor. A fork event that could not be read for this stays queued.
        case tooManyDescriptors

        /// `EBADF`: the descriptor is not open.
        case badDescriptor

        /// `ENOTTY`: the descriptor is open, and no userfaultfd.
        case notUserfaultFD

        /// The file is no memory file: neither tmpfs nor hugetlbfs nor guest_memfd has it.
        case notMemoryFile

        /// The peer closed the connection.
        case peerClosed

        /// A message came without the descriptor it was to carry.
        case noDescriptor

        /// Anything else: see ``UserfaultError/errno``.
        case other
    }

    /// What the kernel's answer means for this operation.
    public var reason: Reason {
        switch circumstance {
        case .kernelLacksIt: return .unsupported
        case .notNegotiated: return .notNegotiated
        case .alreadyNegotiated: return .alreadyNegotiated
        case .peerClosed: return .peerClosed
        case .noDescriptor: return .noDescriptor
        case .noSourcePage: return .noSourcePage
        case .poolMayBeEmpty: return .alreadyMappedOrPoolEmpty
        case .blockingMode: return .blockingMode
        case .notMemoryFile: return .notMemoryFile
        case .none, .userModeOnly: break
        }
        if operation == .open { return reasonOfOpening }
        switch errno {
        case .resourceTemporarilyUnavailable where operation.touchesPages:
            return bytesCompleted > 0 ? .partial : .mappingIsChanging
        case .resourceTemporarilyUnavailable: return operation.reads ? .wouldBlock : .noMemory
        case .fileExists where operation.touchesPages: return .alreadyMapped
        case .noSuchFileOrDirectory where operation.touchesPages: return .noSuchRange
        case .noSuchProcess: return .processGone
        case .noSpace where operation == .pollSet: return .other
        case .noMemory, .noSpace: return .noMemory
        case .notPermitted, .permissionDenied: return .notPermitted
        case .inappropriateIOCTLForDevice where operation == .adopt: return .notUserfaultFD
        case .noFunction, .notSupported, .inappropriateIOCTLForDevice: return .unsupported
        case .invalidArgument: return .invalidArgument
        case .badAddress where operation == .continue: return .noPageInFile
        case .badAddress: return .badAddress
        case .resourceBusy: return .busy
        case .ioError where operation.touchesPages: return .brokenMemory
        case .interrupted: return .interrupted
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem: return .tooManyDescriptors
        case .badFileDescriptor: return .badDescriptor
        case .brokenPipe, .connectionReset: return .peerClosed
        default: return .other
        }
    }

    /// If one way is forbidden and the other is not there, a permission is what helps.
    private var reasonOfOpening: Reason {
        let answers = [systemCallAnswer, deviceAnswer].compactMap { $0 }
        if answers.contains(.notPermitted) || answers.contains(.permissionDenied) { return .notPermitted }
        switch errno {
        case .noFunction, .noSuchFileOrDirectory, .noSuchAddressOrDevice, .operationNotSupportedByDevice:
            return .unsupported
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem: return .tooManyDescriptors
        case .noMemory: return .noMemory
        case .invalidArgument: return .invalidArgument
        default: return .other
        }
    }
}

extension UserfaultError.Operation {
    /// Whether `EAGAIN` means that there is nothing yet, and not that a limit is reached.
    var reads: Bool {
        switch self {
        case .read, .send, .receive, .socket, .readFile, .writeFile, .poll: true
        default: false
        }
    }

    /// Whether it fills or protects pages, which gives several answers a meaning of their own.
    var touchesPages: Bool {
        switch self {
        case .copy, .zeropage, .move, .writeProtect, .continue, .poison, .rwProtect: true
        default: false
        }
    }
}
