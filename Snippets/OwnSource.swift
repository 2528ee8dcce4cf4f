// snippet.server
import Synchronization
import UserfaultFD
import UserfaultPager

struct NoAnswer: Error {}

/// Stands for a server with an image, in which each page is full of its own number.
///
/// It does not answer the first request.
final class Server: Sendable {
    let requests = Atomic(0)

    func page(_ number: Int) throws(NoAnswer) -> UInt64 {
        guard requests.add(1, ordering: .relaxed).newValue > 1 else { throw NoAnswer() }
        return UInt64(number)
    }
}
// snippet.source

struct ServerSource: PageSource {
    let server: Server

    func load(offset: Int, into pages: inout OutputRawSpan) throws(NoAnswer) -> PageReply {
        let size = PageSize.base.bytes
        let word = try server.page(offset / size)
        pages.append(repeating: word, count: size / 8, as: UInt64.self)
        return .data
    }
    // snippet.slow

    var isSlow: Bool { true }
}
// snippet.pager

let size = PageSize.base.bytes
let memory = try Mapping(anonymous: 64 * size)
let pager = try Pager(UserfaultFD(), source: ServerSource(server: Server()))
// snippet.start

try pager.add(memory.range, options: RegionOptions(failure: FailurePolicy(retries: 2)))
try pager.start()
// snippet.read

for page in [9, 40, 3] {
    print("page", page, "is full of", memory.withBytes { $0.unsafeLoad(fromByteOffset: page * size, as: Int.self) })
}
// snippet.stop

try pager.stop(.poison)
print(pager.statistics.retries, "request was repeated")
