import ArgumentParser
import Glibc
import SystemPackage

/// Files that are there whole or not at all.
enum WholeFile {
    /// Writes a file beside the old one, and then puts it in its place: nobody reads half of it.
    ///
    /// - Throws: `Errno`.
    static func write(_ bytes: [UInt8], to path: String) throws {
        try withFile(beside: path) { file, temporary in
            _ = try file.writeAll(bytes)
            guard fsync(file.rawValue) == 0, rename(temporary, path) == 0 else { throw Errno(rawValue: errno) }
        }
    }

    /// Whether a file can be made where one is to be written later.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/uncreatable``.
    static func checkPlace(_ path: String) throws {
        do {
            var status = stat()
            if stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR { throw Errno.isDirectory }
            try withFile(beside: path) { _, temporary in
                guard unlink(temporary) == 0 else { throw Errno(rawValue: errno) }
            }
        } catch let error as Errno {
            throw Failure(.uncreatable, "\(path) cannot be written: \(error)")
        }
    }

    /// Makes a file that nobody else has, under a name beside a path; removes it if the body throws.
    private static func withFile(
        beside path: String, _ body: (FileDescriptor, _ temporary: String) throws -> Void
    ) throws {
        let temporary = "\(path).\(String(UInt64.random(in: 0 ... .max), radix: 16)).new"
        let file = try FileDescriptor.open(
            temporary, .writeOnly, options: [.create, .exclusiveCreate, .closeOnExec],
            permissions: [.ownerReadWrite, .groupRead, .otherRead])
        do {
            try file.closeAfter { try body(file, temporary) }
        } catch {
            unlink(temporary)
            throw error
        }
    }
}
