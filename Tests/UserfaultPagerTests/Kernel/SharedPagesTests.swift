import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// A file on a tmpfs, which cannot be sealed.
private func unsealableFile(pages: Int, in directory: String = "/dev/shm") throws -> Memfd {
    var path = Array("\(directory)/uffd-shared-XXXXXX".utf8CString)
    let descriptor = mkstemp(&path)
    try #require(descriptor >= 0)
    unlink(path)
    let file = try Memfd(adopting: descriptor)
    try file.resize(to: pages * pageBytes)
    return file
}

/// A file of 64 pages on a tmpfs that has room for 8 and ends with the file.
private func fileOnSmallDisk() throws -> Memfd {
    var template = Array("/tmp/uffd-disk-XXXXXX".utf8CString)
    try #require(mkdtemp(&template) != nil)
    let directory = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
    defer { rmdir(directory) }
    try #require(mount("none", directory, "tmpfs", 0, "size=32k") == 0)
    defer { umount2(directory, CInt(MNT_DETACH)) }
    return try unsealableFile(pages: 64, in: directory)
}

/// Counts how often it is asked for each page.
private final class CountingSource: PageSource {
    let asked = Mutex([Int](repeating: 0, count: 64))

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        asked.withLock { $0[offset / pageBytes] += 1 }
        return NumberedSource().load(offset: offset, into: &pages)
    }
}

/// What the kernel answered to the writing of a page, or `nil` where that is not what failed.
private func refusal<Base: PageSource>(of pages: SharedPages<Base>, at offset: Int) -> Errno? {
    do throws(SharedMemorySource<Base>.Failure) {
        try withUnsafeTemporaryAllocation(byteCount: pageBytes, alignment: pageBytes) {
            (room) throws(SharedMemorySource<Base>.Failure) in
            _ = try pages.prepare(offset, in: room)
        }
        return nil
    } catch {
        guard case .file(let errno) = error else { return nil }
        return errno
    }
}

@Suite(.serialized, .timeLimit(.minutes(5)))
struct SharedPagesTests {
    @Test
    func readAheadEndsWithTheFile() throws {
        let pages = try SharedPages(Memfd(count: 4 * pageBytes), from: NumberedSource())
        #expect(try ask(pages.source, at: 2 * pageBytes, count: 16 * pageBytes).reply == .inFile(count: 2 * pageBytes))
        #expect(try ask(pages.source, at: 4 * pageBytes, count: 16 * pageBytes).reply == .poison)
    }

    @Test
    func aMemoryFileIsNotCut() throws {
        let file = try Memfd(count: 4 * pageBytes)
        let pages = try SharedPages(file, from: NumberedSource())
        let error = #expect(throws: UserfaultError.self) { try file.resize(to: pageBytes) }
        #expect(error?.errno == .notPermitted)
        #expect(try ask(pages.source, at: 3 * pageBytes).reply == .inFile(count: pageBytes))
    }

    @Test
    func aFileThatIsCutFailsTheLoad() async {
        await #expect(processExitsWith: .success) {
            let file = try unsealableFile(pages: 4)
            let pages = try SharedPages(file, from: NumberedSource())
            try file.resize(to: pageBytes)
            #expect(try ask(pages.source, at: 0, count: 4 * pageBytes).reply == .inFile(count: pageBytes))
            #expect(refusal(of: pages, at: pageBytes) == .badAddress)
            // It does not grow by that.
            #expect(try file.status().count == pageBytes)
            try file.resize(to: 4 * pageBytes)
            #expect(try ask(pages.source, at: pageBytes).reply == .inFile(count: pageBytes))
        }
    }

    @Test(.requiresRoot)
    func aFullDiskFailsTheLoad() async {
        await #expect(processExitsWith: .success) {
            let file = try fileOnSmallDisk()
            let pages = try SharedPages(file, from: NumberedSource())
            guard case .inFile(let count) = try ask(pages.source, at: 0, count: 16 * pageBytes).reply else { exit(1) }
            #expect(1..<16 ~= count / pageBytes)
            #expect(refusal(of: pages, at: count) == .badAddress)
            try file.punchHole(at: 0, count: pageBytes)
            #expect(try ask(pages.source, at: count).reply == .inFile(count: pageBytes))
        }
    }

    /// The policy is what ends the process, and no signal of the engine's own.
    @Test(.requiresRoot)
    func aFullDiskIsForTheFailurePolicy() async {
        await #expect(processExitsWith: .signal(SIGKILL)) {
            let file = try fileOnSmallDisk()
            let pages = try SharedPages(file, from: NumberedSource())
            let mapping = try Mapping(file)
            let pager = try Pager(UserfaultFD(), source: pages.source)
            try pager.add(mapping.range, options: RegionOptions(failure: .killOwnerAtOnce))
            try pager.start()
            let range = mapping.range
            _ = Toucher.value { (0..<64).map { range.loadWord($0 * pageBytes) } }
        }
    }

    @Test
    func aFailureOfTheBaseIsTold() throws {
        let pages = try SharedPages(Memfd(count: pageBytes), from: FlakySource(failures: 1))
        let failure = #expect(throws: SharedMemorySource<FlakySource>.Failure.self) { try ask(pages.source, at: 0) }
        guard case .source = failure else {
            Issue.record("\(String(describing: failure))")
            return
        }
        #expect(try ask(pages.source, at: 0).reply == .inFile(count: pageBytes))
    }

    /// What the base answers with is read by the kernel, which does not stumble over it.
    @Test
    func aBaseWhoseMemoryIsGoneFailsTheLoad() async {
        await #expect(processExitsWith: .success) {
            let gone = try Mapping(anonymous: pageBytes, protection: .none)
            let start = gone.range.start
            let base = ClosureSource<Never> { _, _ in .memory(at: start, count: pageBytes) }
            let pages = try SharedPages(Memfd(count: pageBytes), from: base)
            #expect(refusal(of: pages, at: 0) == .badAddress)
        }
    }

    // MARK: Pages that are dropped

    @Test
    func aPageThatWasDroppedIsMadeAgain() throws {
        let file = try Memfd(count: 4 * pageBytes)
        let pages = try SharedPages(file, from: CountingSource())
        let client = try Mapping(file)
        let count = 4 * pageBytes
        #expect(try ask(pages.source, at: 0, count: count).reply == .inFile(count: count))
        client.range.store(7, at: pageBytes)
        try client.advise(.remove, client.page(2))

        pages.source.forget(offset: 0, count: count)
        #expect(try ask(pages.source, at: 0, count: count).reply == .inFile(count: count))
        #expect(client.range.loadWord(2 * pageBytes) == NumberedSource.word(2 * pageBytes))
        // What a client wrote is not the base's to write again.
        #expect(client.range.load(pageBytes) == 7)
        #expect(pages.base.asked.withLock { Array($0[0..<4]) } == [1, 1, 2, 1])
    }

    /// What is swapped out is in the file.
    @Test
    func aPageThatIsNotInMemoryIsNotForgotten() throws {
        let file = try Memfd(count: pageBytes)
        let pages = try SharedPages(file, from: CountingSource())
        let client = try Mapping(file)
        _ = try ask(pages.source, at: 0)
        client.range.store(7, at: 0)
        try? client.advise(.pageOut)
        pages.source.forget(offset: 0, count: pageBytes)
        _ = try ask(pages.source, at: 0)
        #expect(client.range.load(0) == 7)
    }

    /// One client drops a page: the others find it again.
    @Test
    func clientsGetADroppedPageAgain() async {
        await #expect(processExitsWith: .success) {
            alarm(20)
            let file = try Memfd(count: 8 * pageBytes)
            let pages = try SharedPages(file, from: NumberedSource())
            let clients = [try Mapping(file).release(), try Mapping(file).release()]
            let pagers = try clients.map { range in
                let pager = try Pager(UserfaultFD(), source: pages.source)
                try pager.add(range)
                try pager.start()
                return pager
            }
            let first = clients[0]
            let expected = (0..<8).map { NumberedSource.word($0 * pageBytes) }
            #expect(Toucher.value { (0..<8).map { first.loadWord($0 * pageBytes) } } == expected)
            try AddressSpace.advise(.remove, first)
            for range in clients {
                #expect(Toucher.value { (0..<8).map { range.loadWord($0 * pageBytes) } } == expected)
            }
            for pager in pagers { try pager.stop(.poison) }
        }
    }

    @Test
    func aSourceThatAnswersLaterIsRefused() throws {
        let file = try Memfd(count: pageBytes)
        let refusal = error { () throws(PagerError) in
            _ = try SharedPages(file, from: AsynchronousSource(LaterSource(box: Mailbox())))
        }
        guard case .configuration = refusal else {
            Issue.record("not refused: \(String(describing: refusal))")
            return
        }
    }
}
