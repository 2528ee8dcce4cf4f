// Copy-on-write clones of one snapshot: several processes share the pages that they only read.
import Glibc
import UserfaultFD
import UserfaultPager

/// A snapshot whose every page begins with its number.
func snapshot(offset: Int, pages: inout OutputRawSpan) -> PageReply {
    pages.append(repeating: UInt64(offset / 4096), count: 512, as: UInt64.self)
    return .data
}

func run() throws {
    let pageCount = 1024
    let file = try Memfd(count: pageCount * 4096)
    let pages = try SharedPages(file, from: ClosureSource<Never> { snapshot(offset: $0, pages: &$1) })

    // The children's faults come by the fork events of this process' descriptor, which needs CAP_SYS_PTRACE.
    let clone = try Mapping(file, sharing: .private)
    guard let uffd = try? UserfaultFD(features: .eventFork) else {
        print("skipped: fork events need CAP_SYS_PTRACE")
        return
    }
    let pager = try Pager(uffd, source: pages.source)
    try pager.add(clone.range)
    try pager.start()

    let children = (1...3).map { number -> pid_t in
        let child = fork()
        if child == 0 {
            let first = UnsafeMutablePointer<UInt64>(bitPattern: clone.range.start)!
            // Its own copy of the first page, and the snapshot's everywhere else.
            first[0] = UInt64(number) * 1000
            for page in 1..<pageCount where first[page * 512] != UInt64(page) { _exit(1) }
            _exit(first[0] == UInt64(number) * 1000 ? 0 : 2)
        }
        return child
    }
    for child in children {
        var status: CInt = 0
        waitpid(child, &status, 0)
        precondition(status == 0, "a clone read something else: \(status)")
    }
    let kept = try file.status().blocks * 512
    print("3 processes wrote to their own clone of a snapshot of \(pageCount * 4) KiB, and saw only their own writes")
    let mapped = pager.statistics.pagesContinued
    print("the pages that they only read are kept once, in \(kept >> 10) KiB, and were mapped \(mapped) times")
    try pager.stop(.poison)
}

try run()
