import Glibc
import SystemPackage
import UserfaultFD

/// Another process sends its userfaultfd over a socket, and this one serves its memory.
func passADescriptor() throws -> CInt {
    var sockets: [CInt] = [-1, -1]
    guard socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &sockets) == 0 else { throw Errno(rawValue: errno) }
    let ours = FileDescriptor(rawValue: sockets[0])
    let theirs = FileDescriptor(rawValue: sockets[1])

    let child = fork()
    guard child >= 0 else { throw Errno(rawValue: errno) }
    if child == 0 { _exit((try? beServed(over: theirs)) ?? 1) }
    try theirs.close()

    var message = try DescriptorPassing.receive(from: ours)
    let address = message.payload.withUnsafeBytes { $0.loadUnaligned(as: UInt.self) }
    // The sender has said what it negotiated: nothing is read from /proc, and nothing can be lost.
    let userfaultfd = try message.descriptors.takeUserfaultFD(features: [])
    let contents = [UInt8](repeating: 42, count: PageSize.base.bytes)
    var batch = EventBatch()
    guard try userfaultfd.poll(timeout: .seconds(10)) else { return -1 }
    try userfaultfd.read(into: &batch)
    while let fault = batch.nextPageFault() {
        try userfaultfd.copy(contents.span.bytes, to: fault.page(size: .base))
    }
    print("served page 0x\(String(address, radix: 16)) of process \(try PeerCredentials(of: ours).process)")

    var status: CInt = 0
    waitpid(child, &status, 0)
    return status >> 8
}

/// What the other process does: it registers memory, sends the descriptor, and touches the memory.
func beServed(over socket: FileDescriptor) throws -> CInt {
    let memory = try Mapping(anonymous: PageSize.base.bytes)
    let userfaultfd = try UserfaultFD()
    try userfaultfd.register(memory.range, modes: .missing)
    let address = [memory.range.start]
    try userfaultfd.send(over: socket, payload: address.span.bytes)
    return CInt(memory.withBytes { $0.unsafeLoad(as: UInt8.self) })
}

print("the other process read", try passADescriptor())
