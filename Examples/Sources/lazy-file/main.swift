// Lazily loads a big file: the memory is there at once, its pages come from the file when they are touched.
import Glibc
import UserfaultFD
import UserfaultPager

func run() throws {
    // A sparse file of 1 GiB, with a number in the middle.
    let path = "/tmp/lazy-file-\(getpid())"
    let file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0o600)
    unlink(path)
    let size = 1 << 30
    ftruncate(file, off_t(size))
    var number = 42
    pwrite(file, &number, MemoryLayout<Int>.size, off_t(size / 2))

    let memory = try Mapping(anonymous: size, options: .noReserve)
    let pager = try Pager(UserfaultFD(), source: FileSource(adopting: file))
    try pager.add(memory.range)
    try pager.start()

    let found = memory.withBytes { $0.unsafeLoad(fromByteOffset: size / 2, as: Int.self) }
    try pager.stop(.poison)
    let statistics = pager.statistics
    print("read the number \(found) from the middle of a file of \(size >> 20) MiB")
    print("\(statistics.bytesFilled >> 10) KiB of it were loaded, for \(statistics.faults) page fault(s)")
    precondition(found == 42 && statistics.bytesFilled < size / 100)
}

try run()
