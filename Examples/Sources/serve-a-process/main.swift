// Serves the memory of another process: the client sends its userfaultfd over a Unix socket, and then just reads.
import Glibc
import SystemPackage
import UserfaultFD
import UserfaultPager

let pageCount = 256
let pageSize = PageSize.base.bytes

/// The client: returns 0 if its memory holds what the server has.
func client(_ socket: FileDescriptor) throws -> CInt {
    let memory = try Mapping(anonymous: pageCount * pageSize)
    let uffd = try UserfaultFD()
    // The message that carries the descriptor tells the server where the memory is.
    let place = [UInt64(memory.range.start), UInt64(memory.range.count)]
    try uffd.send(over: socket, payload: place.span.bytes)
    // While this process keeps its descriptor open, the death of the server leaves it waiting instead of reading zeros.
    var ready: UInt8 = 0
    guard read(socket.rawValue, &ready, 1) == 1 else { return 1 }
    let sum = memory.withBytes { bytes in
        stride(from: 0, to: bytes.byteCount, by: pageSize).reduce(0) {
            $0 + Int(bytes.unsafeLoad(fromByteOffset: $1, as: UInt8.self))
        }
    }
    return sum == pageCount * 7 ? 0 : 2
}

func server(_ socket: FileDescriptor, of client: pid_t) throws {
    // Without the owner, the pager would not notice the end of the client, and could not kill it.
    guard let owner = Owner.process(id: client) else { fatalError("process \(client) cannot be watched") }
    var message = try DescriptorPassing.receive(from: socket)
    let place = message.payload.withUnsafeBytes { Array($0.bindMemory(to: UInt64.self)) }
    guard place.count == 2 else { fatalError("the client did not say where its memory is") }
    let range = try AddressRange(checkingStart: UInt(place[0]), count: Int(place[1]))
    let sevens = ClosureSource<Never> { _, pages in
        pages.append(repeating: 7, count: pages.freeCapacity, as: UInt8.self)
        return .data
    }
    let pager = try Pager(message.descriptors.takeUserfaultFD(), source: sevens, owner: owner)
    try pager.add(range)
    try pager.start()
    guard try socket.writeAll([1]) == 1 else { fatalError("the client is gone") }
    var status: CInt = 0
    guard waitpid(client, &status, 0) == client else { fatalError("waitpid failed: errno \(errno)") }
    print("another process read \(pageCount) pages of its memory; all of them came from this process")
    print("with read-ahead, that took \(pager.statistics.faults) page faults; the client's exit status is \(status)")
    precondition(status == 0)
    try pager.stop(.poison)
}

var sockets: [CInt] = [-1, -1]
guard socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &sockets) == 0 else {
    fatalError("socketpair failed: errno \(errno)")
}
let child = fork()
guard child >= 0 else { fatalError("fork failed: errno \(errno)") }
if child == 0 {
    close(sockets[0])
    _exit((try? client(FileDescriptor(rawValue: sockets[1]))) ?? 3)
}
close(sockets[1])
try server(FileDescriptor(rawValue: sockets[0]), of: child)
