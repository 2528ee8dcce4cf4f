// A disk that fails: the page is tried again, then poisoned. Whoever touches it gets SIGBUS, and nobody reads zeros.
import Glibc
import UserfaultFD
import UserfaultPager

struct DiskError: Error {}

/// A disk of which one sector is broken.
func disk(offset: Int, pages: inout OutputRawSpan) throws(DiskError) -> PageReply {
    if offset == 3 * 4096 { throw DiskError() }
    pages.append(repeating: 1, count: 4096, as: UInt8.self)
    return .data
}

func run() throws {
    // The program that reads the disk is a child, so that somebody is left to tell what became of it.
    let child = fork()
    if child == 0 {
        let memory = try Mapping(anonymous: 8 * 4096)
        let pager = try Pager(
            UserfaultFD(),
            source: ClosureSource<DiskError> { offset, pages throws(DiskError) in
                try disk(offset: offset, pages: &pages)
            })
        try pager.add(memory.range, options: RegionOptions(failure: FailurePolicy(retries: 2)))
        try pager.start()
        let bytes = UnsafePointer<UInt8>(bitPattern: memory.range.start)!
        for page in 0..<8 where bytes[page * 4096] != 1 { _exit(1) }
        _exit(0)
    }
    var status: CInt = 0
    waitpid(child, &status, 0)
    print("page 3 of 8 cannot be read from the disk, and was tried 3 times")
    print("who touched it was ended by signal \(status & 0x7f) (SIGBUS is \(SIGBUS)), and did not read zeros")
    precondition(status & 0x7f == SIGBUS)
}

try run()
