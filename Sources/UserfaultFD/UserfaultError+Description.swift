internal import SystemPackage

extension UserfaultError.Operation: CustomStringConvertible {
    /// The kernel's name of the operation.
    public var description: String {
        switch self {
        case .open: "opening a userfaultfd"
        case .negotiate: "UFFDIO_API"
        case .register: "UFFDIO_REGISTER"
        case .unregister: "UFFDIO_UNREGISTER"
        case .wake: "UFFDIO_WAKE"
        case .copy: "UFFDIO_COPY"
        case .zeropage: "UFFDIO_ZEROPAGE"
        case .move: "UFFDIO_MOVE"
        case .writeProtect: "UFFDIO_WRITEPROTECT"
        case .continue: "UFFDIO_CONTINUE"
        case .poison: "UFFDIO_POISON"
        case .rwProtect: "UFFDIO_RWPROTECT"
        case .setMode: "UFFDIO_SET_MODE"
        case .read: "reading messages"
        case .poll: "poll"
        case .close: "close"
        case .duplicate: "duplicating a descriptor"
        case .configure: "setting the blocking mode"
        case .status: "reading /proc/self/fdinfo"
        case .send: "sending descriptors"
        case .receive: "receiving descriptors"
        case .peerCredentials: "SO_PEERCRED"
        case .range: "making an address range"
        case .map: "mmap"
        case .unmap: "munmap"
        case .remap: "mremap"
        case .protect: "mprotect"
        case .advise: "madvise"
        case .createMemfd: "memfd_create"
        case .resize: "ftruncate"
        case .allocate: "fallocate"
        case .seal: "sealing a memfd"
        case .fileStatus: "fstat"
        case .readFile: "pread"
        case .writeFile: "pwrite"
        case .pagemapScan: "PAGEMAP_SCAN"
        case .adopt: "adopting a descriptor"
        case .eventFD: "eventfd"
        case .pollSet: "epoll"
        case .openProcess: "pidfd_open"
        case .signalProcess: "pidfd_send_signal"
        case .takeDescriptor: "pidfd_getfd"
        case .adviseProcess: "process_madvise"
        case .residency: "mincore"
        case .openFile: "open"
        case .lockMemory: "mlock"
        case .storeMemory: "process_vm_writev"
        case .socket: "a socket call"
        case .createThread: "creating a thread"
        case .createLock: "creating a lock"
        default: "operation \(rawValue)"
        }
    }
}

extension UserfaultError: CustomStringConvertible {
    /// One line: the operation, the kernel's answer, the progress, and what to do.
    public var description: String {
        var text = "\(operation) failed: \(errno)"
        if systemCallAnswer != nil || deviceAnswer != nil {
            let answers = [
                systemCallAnswer.map { "userfaultfd(2) answered \($0)" },
                deviceAnswer.map { "/dev/userfaultfd answered \($0)" },
            ]
            text = "\(operation) failed: " + answers.compactMap { $0 }.joined(separator: "; ")
        }
        if bytesCompleted > 0 { text += " after \(bytesCompleted) bytes" }
        if let advice { text += ": \(advice)" }
        return text
    }

    /// What to do about it, if there is something to say.
    private var advice: String? {
        switch reason {
        case .alreadyMapped: "the page is there already; wake the threads that wait for it and go on"
        case .alreadyMappedOrPoolEmpty:
            "the page is there already, or the huge page pool is empty; wake once, then check the page or the pool"
        case .mappingIsChanging: "read pending events without waiting for them, and try again"
        case .partial: "continue after the bytes that are done"
        case .noSuchRange: "nothing registered is mapped there, or the range leaves its mapping"
        case .noSourcePage: "the source has no page there; resolve with zeros"
        case .processGone: "the process has exited or executed another program"
        case .noMemory: "no memory, a full tmpfs, or the limit of a memory cgroup"
        case .notPermitted where operation == .open: OpeningDiagnosis.advice(for: self)
        case .unsupported where operation == .open: OpeningDiagnosis.advice(for: self)
        case .notPermitted where operation == .negotiate: "EVENT_FORK needs CAP_SYS_PTRACE"
        case .notPermitted where operation == .register: "the mapping cannot be made writable"
        case .unsupported: "this kernel does not have it"
        case .notNegotiated: "call negotiate first"
        case .alreadyNegotiated: "features are negotiated once"
        case .blockingMode: "poll needs a descriptor in non-blocking mode"
        case .invalidArgument where operation.takesRange:
            "the range must be page-aligned and not empty, and of a memory type that this call supports"
        case .badAddress where operation == .copy: "the source cannot be read, or the range is past the end of the file"
        case .noPageInFile: "the file has no page there; fill it first"
        case .busy where operation == .register: "another userfaultfd has it, or a protection would be lost"
        case .busy where operation == .move: "the source page is shared or pinned; copy it instead"
        case .badDescriptor: "the descriptor is not open"
        case .notUserfaultFD: "the descriptor is no userfaultfd"
        case .notMemoryFile: "the file is neither on tmpfs nor on hugetlbfs, nor a guest_memfd"
        case .noDescriptor: "the message carried no descriptor"
        default: nil
        }
    }
}

extension UserfaultError.Operation {
    /// Whether the call's argument is a range of addresses.
    fileprivate var takesRange: Bool {
        touchesPages || self == .register || self == .unregister || self == .wake
    }
}
