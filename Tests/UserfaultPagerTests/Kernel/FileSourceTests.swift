import Glibc
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite(.serialized, .timeLimit(.minutes(5)))
struct FileSourceTests {
    static let pages = [0, 1, 2, 3, 7, 8, 15, 20]
    static let expected = pages.map { $0 < 16 ? NumberedSource.word($0 * pageBytes) : 0 }

    /// A file system on a disk, whose pages the kernel can drop.
    private static func temporaryFile(pages: Int) throws -> Int32 {
        var path = Array("/var/tmp/uffd-source-XXXXXX".utf8CString)
        let file = mkstemp(&path)
        try #require(file >= 0)
        unlink(path)
        for page in 0..<pages {
            var word = NumberedSource.word(page * pageBytes)
            try #require(pwrite(file, &word, 8, off_t(page * pageBytes)) == 8)
        }
        try #require(ftruncate(file, off_t(pages * pageBytes)) == 0)
        return file
    }

    private static func isMapped(_ address: UInt) -> Bool {
        let pagemap = open("/proc/self/pagemap", O_RDONLY)
        defer { close(pagemap) }
        var entry: UInt64 = 0
        guard pread(pagemap, &entry, 8, off_t(address / UInt(pageBytes) * 8)) == 8 else { return false }
        return entry >> 63 == 1
    }

    // MARK: What a file is

    @Test(arguments: [-1, Int32.min, 1_000_000])
    func whatIsNotOpenIsRefused(number: Int32) {
        #expect(
            error { () throws(PagerError) in _ = try FileSource(adopting: number) } == .file(.badFileDescriptor))
    }

    @Test(.requiresLoopDevice)
    func blockDevicesAreReadToTheirEnd() throws {
        let file = try numberedFile(pages: 16, bytes: 15 * pageBytes + 512).release()
        let device = try #require(LoopDevice.open(over: file))
        let found = try words(of: FileSource(adopting: device), at: Self.pages, count: 32) {
            try Mapping(anonymous: 32 * pageBytes)
        }
        #expect(found == Self.expected)
        close(file)
    }

    @Test(.requiresLoopDevice)
    func blockDevicesAreMappedToTheirEnd() throws {
        let file = try numberedFile(pages: 16, bytes: 15 * pageBytes + 512).release()
        let device = FileDescriptor(rawValue: try #require(LoopDevice.open(over: file)))
        try device.seek(offset: 512, from: .start)
        let source = try MappedFileSource(device)
        #expect(try device.seek(offset: 0, from: .current) == 512)
        try device.close()
        let found = try words(of: source, at: Self.pages, count: 32) { try Mapping(anonymous: 32 * pageBytes) }
        #expect(found == Self.expected)
        close(file)
    }

    @Test(arguments: ["/proc/self/status", "/dev/zero", "/dev", "/proc/self/fd"])
    func filesThatDoNotTellTheirSizeAreRefused(path: String) {
        #expect(throws: PagerError.fileWithoutSize) {
            _ = try FileSource(adopting: open(path, O_RDONLY))
        }
        #expect(throws: PagerError.fileWithoutSize) {
            let file = FileDescriptor(rawValue: open(path, O_RDONLY))
            defer { try? file.close() }
            _ = try MappedFileSource(file)
        }
    }

    @Test
    func aPipeIsRefusedAndClosed() {
        var ends: [CInt] = [-1, -1]
        pipe(&ends)
        #expect(throws: PagerError.fileWithoutSize) { _ = try FileSource(adopting: ends[0]) }
        // Nobody is left who could read.
        #expect((try? poll(ends[1], until: Deadline(after: .zero))) == Int16(POLLERR))
        close(ends[1])
    }

    @Test
    func anEmptyFileIsZeros() throws {
        let source = try FileSource(adopting: Memfd(count: 0).release())
        #expect(try ask(source, at: 0).reply == .zero)
        let file = try Memfd(count: 0)
        let mapped = try file.withUnsafeDescriptor { descriptor throws in try MappedFileSource(descriptor) }
        #expect(try ask(mapped, at: 0).reply == .zero)
    }

    // MARK: Files that fail

    @Test
    func whatTheKernelAnsweredIsTheFailure() throws {
        let file = try numberedFile(pages: 1)
        let source = try file.withUnsafeDescriptor { descriptor throws in
            try FileSource(adopting: open("/proc/self/fd/\(descriptor.rawValue)", O_WRONLY))
        }
        #expect(throws: FileSource.Failure.read(.badFileDescriptor)) { try ask(source, at: 0) }
    }

    /// The device has lost what is behind its first page: reading that is `EIO`.
    @Test(.requiresLoopDevice)
    func aDiskThatFailsIsAFailure() async throws {
        let file = try numberedFile(pages: 16).release()
        let source = try FileSource(adopting: #require(LoopDevice.open(over: file)))
        ftruncate(file, pageBytes)
        #expect(try ask(source, at: 0).bytes.count == pageBytes)
        #expect(throws: FileSource.Failure.read(.ioError)) { try ask(source, at: 8 * pageBytes) }
        close(file)
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let file = try numberedFile(pages: 16).release()
            let device = FileDescriptor(rawValue: LoopDevice.open(over: file)!)
            let source = try MappedFileSource(device)
            ftruncate(file, pageBytes)
            _ = try touchOnePage(of: source, page: 8)
        }
    }

    /// The pages in front of the cut are good, and the one that it goes through is not.
    @Test(arguments: [0, 100])
    func aMappedFileThatIsCutFails(behind: Int) throws {
        let file = FileDescriptor(rawValue: try numberedFile(pages: 4, bytes: 3 * pageBytes + 200).release())
        let source = try MappedFileSource(file)
        func count(at offset: Int, _ asked: Int) throws -> Int? {
            guard case .memory(_, let count) = try ask(source, at: offset, count: asked).reply else { return nil }
            return count
        }
        #expect(try count(at: 0, 4 * pageBytes) == 4 * pageBytes)
        let end = 2 * pageBytes + behind
        ftruncate(file.rawValue, off_t(end))
        #expect(try count(at: 0, 4 * pageBytes) == 2 * pageBytes)
        #expect(try count(at: pageBytes, pageBytes) == pageBytes)
        #expect(throws: FileSource.Failure.truncated(at: end)) { try ask(source, at: 2 * pageBytes) }
        #expect(throws: FileSource.Failure.truncated(at: end)) { try ask(source, at: 3 * pageBytes) }
        #expect(try ask(source, at: 1 << 30).reply == .zero)
        try file.close()
    }

    @Test
    func aMappedFileThatIsCutInItsLastPageFails() throws {
        let file = FileDescriptor(rawValue: try numberedFile(pages: 4, bytes: 3 * pageBytes + 200).release())
        let source = try MappedFileSource(file)
        _ = try ask(source, at: 3 * pageBytes)
        ftruncate(file.rawValue, 3 * pageBytes + 199)
        #expect(throws: FileSource.Failure.truncated(at: 3 * pageBytes + 199)) { try ask(source, at: 3 * pageBytes) }
        // What is appended is not the source's.
        ftruncate(file.rawValue, 5 * pageBytes)
        #expect(try ask(source, at: 3 * pageBytes).reply != .zero)
        try file.close()
    }

    // MARK: When a file is read

    /// The disk is waited for in the source, and not in the call that fills.
    @Test
    func aMappedFileIsReadBeforeItIsHandedOver() throws {
        let file = FileDescriptor(rawValue: try Self.temporaryFile(pages: 8))
        try #require(fsync(file.rawValue) == 0)
        try #require(posix_fadvise(file.rawValue, 0, 0, POSIX_FADV_DONTNEED) == 0)
        let source = try MappedFileSource(file)
        try file.close()
        for page in [0, 5] {
            guard case .memory(let address, pageBytes) = try ask(source, at: page * pageBytes).reply else {
                Issue.record("no page \(page)")
                return
            }
            #expect(Self.isMapped(address))
        }
    }
}
