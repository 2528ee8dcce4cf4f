// Reads a compressed file as plain memory: each page is decompressed by the thread that touches it, when it does.
//
// compressed-file [FILE.lz4]; `lz4 -B4 --content-size` writes the file. Without one it makes a sample.
import Glibc
import UserfaultFD
import UserfaultPager

/// Sums up bytes of some pages, which is what the program does with its data.
func sum(_ memory: UnsafeRawPointer, byteCount: Int, pages: Int) -> UInt64 {
    var generator = Generator()
    var sum: UInt64 = 0
    for _ in 0..<pages {
        let offset = Int.random(in: 0..<byteCount, using: &generator)
        sum &+= UInt64(memory.load(fromByteOffset: offset, as: UInt8.self))
    }
    return sum
}

func milliseconds(since start: ContinuousClock.Instant) -> Int {
    Int((ContinuousClock.now - start) / .milliseconds(1))
}

func run() throws {
    let descriptor: CInt
    if CommandLine.arguments.count > 1 {
        descriptor = open(CommandLine.arguments[1], O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { fatalError("\(CommandLine.arguments[1]) cannot be opened: errno \(errno)") }
    } else {
        descriptor = compressedSample(byteCount: 64 << 20)
    }
    let file = try LZ4File(descriptor)
    let byteCount = file.byteCount
    let pages = max(1, byteCount / PageSize.base.bytes / 100)

    var start = ContinuousClock.now
    let whole = try Mapping(anonymous: file.blockCount * file.blockBytes)
    for block in 0..<file.blockCount {
        let place = UnsafeMutableRawPointer(bitPattern: whole.range.start + UInt(block * file.blockBytes))
        let room = UnsafeMutableRawBufferPointer(start: place, count: file.blockBytes)
        guard file.decompress(block, into: room) else { throw LZ4Source.Failure.brokenBlock(block) }
    }
    let expected = sum(UnsafeRawPointer(bitPattern: whole.range.start)!, byteCount: byteCount, pages: pages)
    let allFirst = milliseconds(since: start)

    start = ContinuousClock.now
    let memory = try Mapping(anonymous: PageSize.base.roundUp(byteCount), options: .noReserve)
    let pager = try Pager(UserfaultFD(features: .sigbus), source: LZ4Source(file))
    try pager.add(memory.range)
    try pager.start()
    let found = sum(UnsafeRawPointer(bitPattern: memory.range.start)!, byteCount: byteCount, pages: pages)
    let lazily = milliseconds(since: start)
    try pager.stop(.poison)
    guard found == expected else { fatalError("the sums differ: \(found) and \(expected)") }
    print(
        "\(pages) random bytes of \(byteCount >> 20) MiB, the same ones both ways; \(pager.statistics.faults) page faults"
    )
    print("decompressed when touched: \(lazily) ms; all of it first: \(allFirst) ms")
}

do {
    try run()
} catch {
    print("compressed-file: \(error)")
    exit(1)
}
