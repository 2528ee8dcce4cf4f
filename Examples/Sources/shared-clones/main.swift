// snippet.snapshot
// Copy-on-write clones of one snapshot: several processes share the pages that they only read.
import Glibc
import UserfaultFD
import UserfaultPager

let pageCount = 1024
let pageSize = PageSize.base.bytes

/// A snapshot in which every page is filled with its own number.
func snapshot(offset: Int, pages: inout OutputRawSpan) -> PageReply {
    let words = pageSize / MemoryLayout<UInt64>.size
    pages.append(repeating: UInt64(offset / pageSize), count: words, as: UInt64.self)
    return .data
}
// snippet.clone

/// A clone: changes its own first page, and reads the snapshot everywhere else.
func cloneIsRight(_ number: Int, _ clone: AddressRange) -> Bool {
    func word(_ page: Int) -> UnsafeMutablePointer<UInt64> {
        UnsafeMutablePointer(bitPattern: clone.start + UInt(page * pageSize))!
    }
    word(0).pointee = UInt64(number) * 1000
    for page in 1..<pageCount where word(page).pointee != UInt64(page) { return false }
    return word(0).pointee == UInt64(number) * 1000
}
// snippet.file

func run() throws {
    let file = try Memfd(count: pageCount * pageSize)
    let pages = try SharedPages(file, from: ClosureSource<Never> { snapshot(offset: $0, pages: &$1) })
    // snippet.pager

    // This process's descriptor reports forks, so that the pager serves the children too. This needs CAP_SYS_PTRACE.
    let clone = try Mapping(file, sharing: .private)
    guard let uffd = try? UserfaultFD(features: .eventFork) else {
        print("skipped: fork events need CAP_SYS_PTRACE")
        return
    }
    let pager = try Pager(uffd, source: pages.source)
    try pager.add(clone.range)
    try pager.start()
    // snippet.fork

    let children = (1...3).map { number -> pid_t in
        let child = fork()
        guard child >= 0 else { fatalError("fork failed: errno \(errno)") }
        if child == 0 { _exit(cloneIsRight(number, clone.range) ? 0 : 1) }
        return child
    }
    for child in children {
        var status: CInt = 0
        guard waitpid(child, &status, 0) == child else { fatalError("waitpid failed: errno \(errno)") }
        precondition(status == 0, "a clone read something else: \(status)")
    }
    // snippet.count

    let kept = try file.status().blocks * 512
    print(
        "3 processes wrote to their clones of a snapshot of \(pageCount * pageSize >> 10) KiB, and saw only their own writes"
    )
    let mapped = pager.statistics.pagesContinued
    print("the pages that they only read are kept once, in \(kept >> 10) KiB, and were mapped \(mapped) times")
    try pager.stop(.poison)
}

try run()
