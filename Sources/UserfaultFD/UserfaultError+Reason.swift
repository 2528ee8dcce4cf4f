internal import SystemPackage

extension UserfaultError {
    /// What the kernel's answer means for the operation that got it, and so what to do.
    public enum Reason: Hashable, Sendable {
        /// `EEXIST`: the page at the start of the range is there already. Nobody was woken: call
        /// ``UserfaultFD/wake(_:)``, then treat the fault as resolved. On Linux 7.3 a `UFFDIO_COPY` to hugetlbfs also
        /// answers this when the huge page pool is empty: do not try for ever.
        case alreadyMapped

        /// `EAGAIN` without progress: an event is on its way and its range is changing. Read events, then try again;
        /// trying without reading never ends.
        case mappingIsChanging

        /// `EAGAIN` with progress: the first ``UserfaultError/bytesCompleted`` bytes are done, their waiters woken.
        /// Go on behind them, and the kernel says what stopped it.
        case partial

        /// `ENOENT`: nothing registered is mapped there, or the range leaves its mapping. Drop the work, or split it
        /// where one mapping ends. For `UFFDIO_MOVE` also a source page that is not there.
        case noSuchRange

        /// `ESRCH`: the process whose memory this is has exited or executed another program. End quietly.
        case processGone

        /// `ENOMEM` or `ENOSPC`: no memory, a limit of the memory cgroup, or a full tmpfs. From `UFFDIO_REGISTER` and
        /// `UFFDIO_UNREGISTER` also that the process is gone or, up to Linux 6.1, that nothing is mapped.
        case noMemory

        /// `EPERM` or `EACCES`: not allowed. ``KernelSupport/probe()`` says what would allow it.
        case notPermitted

        /// The kernel does not have this call, feature or mode.
        case unsupported

        /// `EINVAL`: a range that is empty or not aligned, a combination of flags, or memory of the wrong kind.
        case invalidArgument

        /// `EINVAL` because ``UserfaultFD/negotiate(_:)`` was not called yet.
        case notNegotiated

        /// `EINVAL` because the descriptor was negotiated before, which can be done once.
        case alreadyNegotiated

        /// `EFAULT`: the source cannot be read, or the range lies past the end of its file.
        case badAddress

        /// `EFAULT` from `UFFDIO_CONTINUE`: the file has no page at the start of the range. Fill it, or use
        /// `UFFDIO_COPY`. `EINVAL` says the same of a range past the end of the file, up to Linux 7.0.
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

        /// The peer closed the connection.
        case peerClosed

        /// The kernel discarded descriptors of a message (`MSG_CTRUNC`): too many, or no room for them here. What did
        /// arrive was closed.
        case descriptorsTruncated

        /// A message came without the descriptor it was to carry.
        case noDescriptor

        /// Anything else: see ``UserfaultError/errno``.
        case other
    }

    /// What the kernel's answer means for this operation.
    public var reason: Reason {
        if circumstances.contains(.kernelLacksIt) { return .unsupported }
        if circumstances.contains(.notNegotiated) { return .notNegotiated }
        if circumstances.contains(.alreadyNegotiated) { return .alreadyNegotiated }
        if circumstances.contains(.descriptorsTruncated) { return .descriptorsTruncated }
        if circumstances.contains(.peerClosed) { return .peerClosed }
        if circumstances.contains(.noDescriptor) { return .noDescriptor }
        if operation == .open { return reasonOfOpening }
        switch errno {
        case .resourceTemporarilyUnavailable where bytesCompleted > 0: return .partial
        case .resourceTemporarilyUnavailable: return operation.touchesPages ? .mappingIsChanging : .wouldBlock
        case .fileExists where operation.touchesPages: return .alreadyMapped
        case .noSuchFileOrDirectory where operation.touchesPages: return .noSuchRange
        case .noSuchProcess: return .processGone
        case .noMemory, .noSpace: return .noMemory
        case .notPermitted, .permissionDenied: return .notPermitted
        case .noFunction, .notSupported, .inappropriateIOCTLForDevice: return .unsupported
        case .invalidArgument: return .invalidArgument
        case .badAddress where operation == .continue: return .noPageInFile
        case .badAddress: return .badAddress
        case .resourceBusy: return .busy
        case .ioError where operation.touchesPages: return .brokenMemory
        case .interrupted: return .interrupted
        case .tooManyOpenFiles, .tooManyOpenFilesInSystem: return .tooManyDescriptors
        case .brokenPipe, .connectionReset: return .peerClosed
        default: return .other
        }
    }

    /// Where one way is forbidden and the other is not there, a permission is what helps.
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
    /// Whether the kernel's page table rules of part "fill" and "protect" give the answer its meaning.
    var touchesPages: Bool {
        switch self {
        case .copy, .zeropage, .move, .writeProtect, .continue, .poison, .rwProtect: true
        default: false
        }
    }
}
