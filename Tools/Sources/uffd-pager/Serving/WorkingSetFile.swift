import ArgumentParser
import Glibc
import Synchronization
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
        try withFile(beside: path) { file, temporary in
            _ = try file.writeAll(set.bytes)
            guard fsync(file.rawValue) == 0, rename(temporary, path) == 0 else { throw Errno(rawValue: errno) }
        }
    }

    /// Whether a file can be made where one is to be written later.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/uncreatable``.
    static func checkPlace(_ path: String) throws {
        do {
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

/// The file with the pages that the machines of one socket have touched.
final class WorkingSetRecord: Sendable {
    let path: String
    /// What is in the file; `nil` as long as no machine has ended.
    private let set = Mutex<WorkingSet?>(nil)

    /// The most pages of a machine, and of the file.
    static var capacity: Int { 1 << 20 }

    /// - Throws: ``Failure`` with ``ExitCode/uncreatable`` if the file could not be written later.
    init(_ path: String) throws {
        self.path = path
        try WorkingSetFile.checkPlace(path)
    }

    /// Adds the pages of a machine that has ended: they come first, and those that only others have touched follow.
    ///
    /// - Throws: `Errno`.
    func add(_ run: WorkingSet) throws {
        try set.withLock { set in
            var merged = set ?? run
            merged.merge(run, limit: Self.capacity)
            set = merged
            try WorkingSetFile.write(merged, to: path)
        }
    }
}
