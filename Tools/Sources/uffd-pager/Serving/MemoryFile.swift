import ArgumentParser
import Glibc
import SystemPackage
import UserfaultPager

/// The file that machines are restored from.
///
/// It is opened once: all machines get the same file, whatever is at its path by then.
struct MemoryFile: Sendable {
    private let file: OpenDescriptor
    let path: String
    /// Which file it is, whatever its path.
    let identity: String

    /// Opens a regular file or a block device.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/unreadable``.
    init(_ path: String) throws {
        self.path = path
        do {
            file = OpenDescriptor(try FileDescriptor.openWithoutWaiting(path))
            identity = try file.identity()
            guard try source().byteCount > 0 else {
                throw Failure(.unreadable, "\(path) is empty: 0 bytes, and the memory of a machine is needed")
            }
        } catch let error as Errno {
            throw Failure(.unreadable, "\(path) cannot be read: \(error)")
        } catch let error as PagerError {
            throw Failure(.unreadable, "\(path) cannot be read: \(error)")
        }
    }

    /// A source for one machine, which ends where the file ends now.
    func source() throws -> FileSource { try FileSource(adopting: file.duplicate()) }
}

extension FileDescriptor {
    /// Opens a file to be read; a pipe that has no writer does not hold up its caller.
    static func openWithoutWaiting(_ path: String) throws(Errno) -> FileDescriptor {
        let number = Glibc.open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)
        guard number >= 0, fcntl(number, F_SETFL, 0) == 0 else { throw Errno(rawValue: errno) }
        return FileDescriptor(rawValue: number)
    }

    /// The first bytes of a file: fewer if it has become shorter.
    ///
    /// - Throws: `Errno`.
    func content(of count: Int) throws -> [UInt8] {
        try [UInt8](unsafeUninitializedCapacity: count) { room, used in
            while used < count {
                let part = try read(
                    fromAbsoluteOffset: Int64(used),
                    into: UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(room)[used...]))
                if part == 0 { break }
                used += part
            }
        }
    }
}

/// A descriptor that is closed when nobody has it any more.
private final class OpenDescriptor: Sendable {
    private let descriptor: FileDescriptor

    init(_ descriptor: FileDescriptor) {
        self.descriptor = descriptor
    }

    deinit { try? descriptor.close() }

    func identity() throws(Errno) -> String {
        var status = stat()
        guard fstat(descriptor.rawValue, &status) == 0 else { throw Errno(rawValue: errno) }
        return "\(status.st_dev) \(status.st_ino) \(status.st_rdev)"
    }

    /// Another number for the same open file: the caller closes it.
    func duplicate() throws(Errno) -> Int32 { try OwnedDescriptorNumber.duplicate(descriptor.rawValue) }
}
