// A disk that fails: the page is retried, then poisoned. A thread that touches it gets SIGBUS, and never reads zeros.
import Glibc
import UserfaultFD
import UserfaultPager

struct DiskError: Error {}

let pageSize = PageSize.base.bytes

/// A disk with one broken sector.
func disk(offset: Int, pages: inout OutputRawSpan) throws(DiskError) -> PageReply {
    if offset == 3 * pageSize { throw DiskError() }
    pages.append(repeating: 1, count: pageSize, as: UInt8.self)
    return .data
}

/// Reads the disk's pages; the broken one ends the process.
func readAll() throws {
    let memory = try Mapping(anonymous: 8 * pageSize)
    let pager = try Pager(
        UserfaultFD(),
        source: ClosureSource<DiskError> { offset, pages throws(DiskError) in
            try disk(offset: offset, pages: &pages)
        })
    try pager.add(memory.range, options: RegionOptions(failure: FailurePolicy(retries: 2)))
    try pager.start()
    let bytes = UnsafePointer<UInt8>(bitPattern: memory.range.start)!
    for page in 0..<8 where bytes[page * pageSize] != 1 { _exit(1) }
}

// A child reads the disk, so that its parent can report how it ended.
let child = fork()
guard child >= 0 else { fatalError("fork failed: errno \(errno)") }
if child == 0 {
    do { try readAll() } catch { _exit(2) }
    _exit(0)
}
var status: CInt = 0
guard waitpid(child, &status, 0) == child else { fatalError("waitpid failed: errno \(errno)") }
print("page 3 of 8 could not be read from the disk in 3 attempts")
print("the process that touched it ended with signal \(status & 0x7f) (SIGBUS is \(SIGBUS)); it did not read zeros")
precondition(status & 0x7f == SIGBUS)
