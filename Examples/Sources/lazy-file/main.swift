// Loads a big file lazily: the memory is usable at once, and its pages come from the file when they are touched.
import Glibc
import UserfaultFD
import UserfaultPager

/// A sparse file of this size with a number in the middle, already unlinked.
func sparseFile(size: Int, number: Int) -> CInt {
    var path = Array("/tmp/lazy-file-XXXXXX".utf8CString)
    let file = mkstemp(&path)
    guard file >= 0 else { fatalError("the file cannot be made: errno \(errno)") }
    unlink(path)
    let isWritten = withUnsafeBytes(of: number) { pwrite(file, $0.baseAddress!, $0.count, size / 2) == $0.count }
    guard ftruncate(file, size) == 0, isWritten else { fatalError("the file cannot be written: errno \(errno)") }
    return file
}

func run() throws {
    let size = 1 << 30
    let file = sparseFile(size: size, number: 42)
    let memory = try Mapping(anonymous: size, options: .noReserve)
    let pager = try Pager(UserfaultFD(), source: FileSource(adopting: file))
    try pager.add(memory.range)
    try pager.start()

    let found = memory.withBytes { $0.unsafeLoad(fromByteOffset: size / 2, as: Int.self) }
    try pager.stop(.poison)
    let statistics = pager.statistics
    print("read the number \(found) from the middle of a file of \(size >> 20) MiB")
    print("loaded \(statistics.bytesFilled >> 10) KiB of it, for \(statistics.faults) page fault(s)")
    precondition(found == 42 && statistics.bytesFilled < size / 100)
}

try run()
