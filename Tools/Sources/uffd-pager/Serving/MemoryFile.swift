import ArgumentParser
import Glibc
import SystemPackage
import UserfaultPager

/// The file that machines are restored from.
///
/// It is opened once: all machines get the same file, whatever is at its path by then.
struct MemoryFile: Sendable {
    private let file: OpenDescriptor

    /// Opens a regular file or a block device.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/unreadable``.
    init(_ path: String) throws {
        do {
            file = OpenDescriptor(try FileDescriptor.open(path, .readOnly, options: .closeOnExec))
            _ = try source()
        } catch let error as Errno {
            throw Failure(.unreadable, "\(path) cannot be read: \(error)")
        } catch let error as PagerError {
            throw Failure(.unreadable, "\(path) cannot be read: \(error)")
        }
    }

    /// A source for one machine, which ends where the file ends now.
    func source() throws -> FileSource { try FileSource(adopting: file.duplicate()) }
}

/// A descriptor that is closed when nobody has it any more.
private final class OpenDescriptor: Sendable {
    private let descriptor: FileDescriptor

    init(_ descriptor: FileDescriptor) {
        self.descriptor = descriptor
    }

    deinit { try? descriptor.close() }

    /// Another number for the same open file: the caller closes it.
    func duplicate() throws(Errno) -> Int32 {
        let number = fcntl(descriptor.rawValue, F_DUPFD_CLOEXEC, 0)
        guard number >= 0 else { throw Errno(rawValue: errno) }
        return number
    }
}
