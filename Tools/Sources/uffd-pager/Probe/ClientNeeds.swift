import UserfaultFD

/// What each client needs of the host, in the names of ``KernelSupport``.
enum ClientKind: String, CaseIterable {
    case firecracker, criu
    case cloudHypervisor = "cloud-hypervisor"
    case handoff

    /// What somebody runs who asks.
    var title: String {
        switch self {
        case .firecracker: "Firecracker"
        case .criu: "CRIU"
        case .cloudHypervisor: "Cloud Hypervisor"
        case .handoff: "your own monitor"
        }
    }

    /// Without these the client cannot be served.
    var required: [KernelSupport.Name] {
        switch self {
        // KVM touches the memory inside the kernel.
        case .firecracker: [.kernelModeFaults, .feature(.eventRemove)]
        case .criu:
            [
                .kernelModeFaults, .forkEvents, .feature(.eventFork), .feature(.eventRemap), .feature(.eventRemove),
                .feature(.eventUnmap),
            ]
        // It saves machines and loads them whole without userfaultfd.
        case .cloudHypervisor: []
        case .handoff: [.userModeFaults]
        }
    }

    /// Without these the client is served, but something is worse: what.
    var useful: [(name: KernelSupport.Name, without: String)] {
        let poison = (KernelSupport.Name.feature(.poison), "a page that cannot be loaded kills the client")
        return switch self {
        case .firecracker: [poison, (.hugePages, "machines with huge pages cannot be restored")]
        case .criu: [poison]
        // It handles the faults of its shared memory itself, and poisons nothing.
        case .cloudHypervisor:
            [KernelSupport.Name.kernelModeFaults, .feature(.missingShmem), .feature(.minorShmem)].map {
                ($0, "machines are not restored on demand, but with all memory first")
            } + [(.hugePages, "machines with huge pages cannot be restored")]
        case .handoff: [poison, (.kernelModeFaults, "system calls and KVM must not touch memory that is not loaded")]
        }
    }
}

/// Whether a client can be served on this host.
struct ClientVerdict: Encodable {
    struct Lack: Encodable {
        let name: String
        let reason: String?
        let remedy: String?
        /// What is worse without it; `nil` if the client cannot be served.
        let consequence: String?
    }

    let client: String
    let isServed: Bool
    let lacks: [Lack]

    init(_ client: ClientKind, on support: KernelSupport) {
        func lack(_ name: KernelSupport.Name, _ consequence: String?) -> Lack? {
            guard !support.has(name) else { return nil }
            return Lack(
                name: name.rawValue, reason: support[name]?.reason, remedy: support[name]?.remedy,
                consequence: consequence)
        }
        let missing = client.required.compactMap { lack($0, nil) }
        self.client = client.rawValue
        isServed = missing.isEmpty
        lacks = missing + client.useful.compactMap { lack($0.name, $0.without) }
    }
}
