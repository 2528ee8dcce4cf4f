import ArgumentParser
import SystemPackage
import UserfaultPager

/// The file that machines are restored from.
struct MemoryFile: Sendable {
    let path: FilePath
    /// In bytes.
    let byteCount: Int

    /// Looks at a regular file or a block device.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/unreadable``.
    init(_ path: String) throws {
        self.path = FilePath(path)
        do {
            let file = try FileDescriptor.open(self.path, .readOnly, options: .closeOnExec)
            byteCount = try file.closeAfter { Int(try file.seek(offset: 0, from: .end)) }
            _ = try source()
        } catch let error as Errno {
            throw Failure(.unreadable, "\(path) cannot be read: \(error)")
        } catch let error as PagerError {
            throw Failure(.unreadable, "\(path) cannot be read: \(error)")
        }
    }

    /// A source of its own for each machine, which does not share the position with another.
    func source() throws -> FileSource {
        try FileSource(adopting: FileDescriptor.open(path, .readOnly, options: .closeOnExec).rawValue)
    }
}
