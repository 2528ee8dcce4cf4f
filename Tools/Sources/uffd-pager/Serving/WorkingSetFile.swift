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
            let file = try FileDescriptor.openWithoutWaiting(path)
            let bytes = try file.closeAfter {
                let count = Int(try file.seek(offset: 0, from: .end))
                guard count <= limit else { throw Errno.fileTooLarge }
                return try file.content(of: count)
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
    static func write(_ set: WorkingSet, to path: String) throws { try write(set.bytes, to: path) }

    /// The same for other files.
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

/// The file with the pages that the machines of one socket have touched.
///
/// It is written in the background, by one thread at most: a disk may hang, and machines are not to wait for that.
final class WorkingSetRecord: Sendable {
    private struct State {
        /// What is to be in the file; `nil` as long as no machine has ended.
        var set: WorkingSet?
        /// Whether the file has less than that.
        var isBehind = false
        var isWriting = false
        /// Finished when all is written.
        var waiters: [AsyncStream<Never>.Continuation] = []
    }

    let path: String
    private let state = Mutex(State())

    /// The most pages of a machine, and of the file.
    static var capacity: Int { 1 << 20 }

    /// - Throws: ``Failure`` with ``ExitCode/uncreatable`` if the file could not be written later.
    init(_ path: String) throws {
        self.path = path
        try WorkingSetFile.checkPlace(path)
    }

    /// Adds the pages of a machine that has ended: they come first, and those that only others have touched follow.
    ///
    /// - Parameter failed: Is told why the file cannot be written.
    func add(_ run: WorkingSet, _ failed: @escaping @Sendable (any Error) -> Void) {
        let begins = state.withLock { state in
            if state.set == nil { state.set = run } else { state.set!.merge(run, limit: Self.capacity) }
            state.isBehind = true
            defer { state.isWriting = true }
            return !state.isWriting
        }
        if begins { Task { await onOwnThread { self.write(failed) } } }
    }

    private func write(_ failed: (any Error) -> Void) {
        while let set = next() {
            do { try WorkingSetFile.write(set, to: path) } catch { failed(error) }
        }
    }

    private func next() -> WorkingSet? {
        state.withLock { state in
            if state.isBehind {
                state.isBehind = false
                return state.set
            }
            state.isWriting = false
            for waiter in state.waiters { waiter.finish() }
            state.waiters = []
            return nil
        }
    }

    /// Waits until all that was added is written.
    ///
    /// - Returns: `false` if the time is over.
    func flush(within limit: Duration) async -> Bool {
        let (written, waiter) = AsyncStream.makeStream(of: Never.self)
        state.withLock { state in
            if state.isWriting { state.waiters.append(waiter) } else { waiter.finish() }
        }
        let patience = Task {
            try await Task.sleep(for: limit)
            waiter.finish()
        }
        for await _ in written {}
        patience.cancel()
        return state.withLock { !$0.isWriting }
    }
}
