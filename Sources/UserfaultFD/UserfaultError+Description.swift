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
        case .handleSignal: "sigaction"
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
        case .invalidArgument: operation.adviceOnInvalidArgument
        case .badAddress where operation == .copy: "the source cannot be read, or the range is past the end of the file"
        case .noPageInFile: "the file has no page there; fill it first"
        case .busy where operation == .register: "another userfaultfd has it, or a protection would be lost"
        case .busy where operation == .move: "the source page is shared or pinned; copy it instead"
        case .badDescriptor: "the descriptor is not open"
        case .notUserfaultFD: "the descriptor is not a userfaultfd"
        case .notMemoryFile: "the file is neither on tmpfs nor on hugetlbfs, nor a guest_memfd"
        case .noDescriptor: "the message carried no descriptor"
        default: nil
        }
    }
}

extension UserfaultError.Operation {
    /// What the operation asks of its arguments: the kernel does not say which of it was missing.
    fileprivate var adviceOnInvalidArgument: String? {
        let pages = "the range must be whole pages of its memory, and not empty"
        return switch self {
        case .register: "\(pages), mapped, and of a memory type that has all of the modes"
        case .unregister: "\(pages), mapped, and of a memory type that can be registered"
        case .wake, .poison: pages
        case .copy: "\(pages); the source must not wrap around the address space"
        case .zeropage: "\(pages), and not of hugetlbfs, which has no zero page: copy zeros"
        case .continue: "\(pages), of a mapped file and not past its end; protecting them needs a registration for that"
        case .move:
            "\(pages); both ranges must be private anonymous memory of this process, mapped alike, the destination registered"
        case .writeProtect: "\(pages), aligned to its huge pages"
        case .rwProtect: pages
        case .range: "an address range must not wrap around the address space"
        case .map, .createMemfd:
            "the length must not be 0, offset and place must be whole pages, and the page size one of this machine"
        case .advise, .adviseProcess, .unmap, .remap: "the range must be whole pages that lie in the mapping"
        case .pagemapScan: "the ranges must be page-aligned, and the categories known to this kernel"
        case .send: "a message carries at least one byte, and at most 253 descriptors"
        default: nil
        }
    }
}
