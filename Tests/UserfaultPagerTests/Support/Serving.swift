import Glibc
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Serves one page of a source and touches it on a thread of its own; for the body of an exit test.
func touchOnePage<Source: PageSource & ~Copyable>(
    of source: consuming Source, page: Int = 0, features: UserfaultFD.Features = [],
    configuration: PagerConfiguration = PagerConfiguration(watchdogInterval: .milliseconds(20)),
    options: RegionOptions = RegionOptions(failure: FailurePolicy(retries: 2, backOff: .microseconds(100)))
) throws -> UInt64? {
    // A source that hangs would hold up the pager's end too.
    alarm(60)
    let mapping = try Mapping(anonymous: 16 * pageBytes)
    let pager = try Pager(UserfaultFD(features: features), source: source, configuration: configuration)
    try pager.add(mapping.range, options: options)
    try pager.start()
    let range = mapping.range
    return Toucher.value { range.loadWord(page * pageBytes) }
}

/// The first words of pages that a source serves, read by a thread of the program.
func words<Source: PageSource & ~Copyable>(
    of source: consuming Source, at pages: [Int], count: Int,
    options: RegionOptions = RegionOptions(), memory: () throws -> Mapping
) throws -> [UInt64]? {
    let mapping = try memory()
    let pager = try Pager(UserfaultFD(), source: source)
    try pager.add(mapping.range, options: options)
    try pager.start()
    let range = mapping.range
    let words = Toucher.value { pages.map { range.loadWord($0 * pageBytes) } }
    try pager.stop(.poison)
    return words
}

/// Serves memory from a source, and compares the first word of every page.
///
/// Not inlined, because the optimizer of Swift 6.3 crashes where it is.
@inline(never)
func serveEveryPage<Source: PageSource & ~Copyable>(
    of source: consuming Source, pages: Int, populates: Bool, _ expected: @escaping @Sendable (Int) -> UInt64
) throws -> PagerStatistics {
    let mapping = try Mapping(anonymous: pages * pageBytes)
    let range = mapping.range
    let pager = try Pager(UserfaultFD(), source: source)
    let region = try pager.add(range)
    try pager.start()
    if populates { try pager.populate(region) }
    #expect(Toucher.value { (0..<pages).allSatisfy { range.loadWord($0 * pageBytes) == expected($0) } } == true)
    try pager.stop(.poison)
    return pager.statistics
}

/// A file in memory with a numbered word at the start of each page.
func numberedFile(pages: Int, bytes: Int? = nil) throws -> Memfd {
    let file = try Memfd(count: pages * pageBytes)
    for page in 0..<pages {
        let word = [NumberedSource.word(page * pageBytes)]
        try file.write(word.span.bytes, at: page * pageBytes)
    }
    if let bytes { try file.resize(to: bytes) }
    return file
}

/// What a source answers when it is asked directly, and what it appended.
func ask<Source: PageSource & ~Copyable>(
    _ source: borrowing Source, at offset: Int, count: Int = pageBytes
) throws -> (reply: PageReply, bytes: [UInt8]) {
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: pageBytes)
    defer { room.deallocate() }
    var pages = OutputRawSpan(buffer: room, initializedCount: 0)
    let reply = try source.load(offset: offset, into: &pages)
    return (reply, Array(room.prefix(pages.finalize(for: room))))
}

/// What a call of a pager throws, or `nil`.
func error(_ call: () throws(PagerError) -> Void) -> PagerError? {
    do throws(PagerError) {
        try call()
        return nil
    } catch {
        return error
    }
}
