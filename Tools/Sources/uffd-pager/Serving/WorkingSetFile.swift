import ArgumentParser
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
        try WholeFile.checkPlace(path)
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
            do { try WholeFile.write(set.bytes, to: path) } catch { failed(error) }
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
