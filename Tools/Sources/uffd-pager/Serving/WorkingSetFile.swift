import ArgumentParser
import Glibc
import SystemPackage
import UserfaultPager

/// Recorded working sets on disk, in the format of `WorkingSet`.
enum WorkingSetFile {
    /// More than a machine of some terabytes touches; a longer file is not one of ours.
    private static let limit = 1 << 32

    /// - Throws: ``Failure`` with ``ExitCode/unreadable``.
    static func read(_ path: String) throws -> WorkingSet {
        do {
            let file = try FileDescriptor.open(path, .readOnly, options: .closeOnExec)
            let bytes = try file.closeAfter {
                let count = Int(try file.seek(offset: 0, from: .end))
                guard count <= limit else { throw Errno.fileTooLarge }
                return try [UInt8](unsafeUninitializedCapacity: count) { room, used in
                    while used < count {
                        let part = try file.read(
                            fromAbsoluteOffset: Int64(used),
                            into: UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(room)[used...]))
                        if part == 0 { break }
                        used += part
                    }
                }
            }
            guard let set = WorkingSet(bytes: bytes) else {
                throw Failure(.unreadable, "\(path) is not a recorded working set, or not all of one")
            }
            return set
        } catch let error as Errno {
            throw Failure(.unreadable, "\(path) cannot be read: \(error)")
        }
    }

    /// Writes a file beside the old one, and then puts it in its place: nobody reads half of it.
    ///
    /// - Throws: `Errno`.
    static func write(_ set: WorkingSet, to path: String) throws {
        let temporary = "\(path).\(getpid()).new"
        let file = try FileDescriptor.open(
            temporary, .writeOnly, options: [.create, .truncate, .closeOnExec],
            permissions: [.ownerReadWrite, .groupRead, .otherRead])
        do {
            try file.closeAfter { _ = try file.writeAll(set.bytes) }
            guard rename(temporary, path) == 0 else { throw Errno(rawValue: errno) }
        } catch {
            unlink(temporary)
            throw error
        }
    }
}
