import ArgumentParser
import Glibc
import SystemPackage
import UserfaultFD
import UserfaultPager

/// A file with the checksums of a memory's pages, as ``ChecksumsCommand`` writes it.
struct ChecksumFile: Sendable {
    let path: String
    let content: PageChecksums
    private let bytes: [UInt8]

    /// - Throws: ``Failure`` with ``ExitCode/unreadable``.
    init(_ path: String) throws {
        self.path = path
        do {
            let file = try FileDescriptor.openWithoutWaiting(path)
            bytes = try file.closeAfter { try Self.content(of: file) }
        } catch let error as Errno {
            throw Failure(.unreadable, "\(path) cannot be read: \(error)")
        }
        guard !bytes.isEmpty, let content = PageChecksums(bytes: bytes) else {
            throw Failure(
                .unreadable,
                "\(path) has \(bytes.count) bytes: a file of checksums has four for each page\(Self.remedy)")
        }
        self.content = content
    }

    private static func content(of file: FileDescriptor) throws -> [UInt8] {
        var status = stat()
        guard fstat(file.rawValue, &status) == 0 else { throw Errno(rawValue: errno) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw Errno.invalidArgument }
        // Of a memory of 16 TiB.
        guard status.st_size <= 16 << 30 else { throw Errno.fileTooLarge }
        return try file.content(of: Int(status.st_size))
    }

    private static let remedy = ": make it with 'uffd-pager checksums IMAGE --output FILE'"

    /// Looks whether they are of a memory so long.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/unreadable``.
    func check(_ byteCount: Int, of memory: String) throws {
        let pages = PageSize.base.pages(in: PageSize.base.roundUp(byteCount))
        guard content.count == pages else {
            throw Failure(
                .unreadable,
                "\(path) has \(content.count) checksums, and \(memory) has \(pages) pages: they are of another "
                    + "memory\(Self.remedy)")
        }
    }

    /// Differs if the content does.
    var digest: String {
        String(bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }, radix: 16)
    }
}
