// Serves another process' memory: the client sends its userfaultfd over a Unix socket and then just reads.
import Glibc
import SystemPackage
import UserfaultFD
import UserfaultPager

/// The client: exits with 0 where its memory holds what the server has.
func client(_ socket: FileDescriptor) throws -> CInt {
    let memory = try Mapping(anonymous: 256 * 4096)
    let uffd = try UserfaultFD()
    // The server learns where the memory is from the message that carries the descriptor.
    let place = [UInt64(memory.range.start), UInt64(memory.range.count)]
    try uffd.send(over: socket, payload: place.span.bytes)
    // As long as this descriptor is open, a server that dies leaves us waiting, not reading zeros.
    var ready: UInt8 = 0
    guard read(socket.rawValue, &ready, 1) == 1 else { return 1 }
    let sum = memory.withBytes { bytes in
        stride(from: 0, to: bytes.byteCount, by: 4096).reduce(0) {
            $0 + Int(bytes.unsafeLoad(fromByteOffset: $1, as: UInt8.self))
        }
    }
    return sum == 256 * 7 ? 0 : 2
}

func run() throws {
    var sockets: [CInt] = [-1, -1]
    socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &sockets)
    let child = fork()
    if child == 0 { _exit((try? client(FileDescriptor(rawValue: sockets[1]))) ?? 3) }

    var message = try DescriptorPassing.receive(from: FileDescriptor(rawValue: sockets[0]))
    let place = message.payload.withUnsafeBytes { Array($0.bindMemory(to: UInt64.self)) }
    let range = try AddressRange(checkingStart: UInt(place[0]), count: Int(place[1]))
    let sevens = ClosureSource<Never> { _, pages in
        pages.append(repeating: 7, count: pages.freeCapacity, as: UInt8.self)
        return .data
    }
    let pager = try Pager(
        message.descriptors.takeUserfaultFD(), source: sevens, owner: Owner.process(id: child) ?? .currentProcess)
    try pager.add(range)
    try pager.start()
    var ready: UInt8 = 1
    write(sockets[0], &ready, 1)
    var status: CInt = 0
    waitpid(child, &status, 0)
    print("another process read 256 pages of its memory, each of which came from this one over its userfaultfd")
    print("read-ahead made that \(pager.statistics.faults) page faults; the client's exit status is \(status)")
    precondition(status == 0)
    try pager.stop(.poison)
}

try run()
