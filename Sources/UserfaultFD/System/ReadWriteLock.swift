internal import CUserfaultFD
internal import SystemPackage

/// A lock for many readers or one writer, whose readers let a waiting writer go first.
///
/// Not recursive: a reader that asks again while a writer waits waits for ever.
@safe
package struct ReadWriteLock: ~Copyable, @unchecked Sendable {
    // Allocated by C: a lock must not move, and Swift does not know the size of the pthread_mutex_t in it on every libc.
    private let lock: OpaquePointer

    /// - Parameter parts: How many parts it has, a power of two: readers on different processors seldom share one, and a
    ///   writer waits for the readers of each.
    package init(parts: Int = 1) throws(UserfaultError) {
        guard let lock = unsafe cuffd_rwlock_create(UInt32(parts)) else {
            throw UserfaultError(.createLock, errno: .noMemory)
        }
        unsafe self.lock = lock
    }

    deinit {
        unsafe cuffd_rwlock_destroy(lock)
    }

    @usableFromInline
    package func lockForReading() { unsafe cuffd_rwlock_read(lock) }

    /// - Parameter lettingReadersIn: Whether readers come first that have waited for the last writer: for who writes again and
    ///   again.
    @usableFromInline
    package func lockForWriting(lettingReadersIn: Bool = false) { unsafe cuffd_rwlock_write(lock, lettingReadersIn) }

    /// On the thread that reads.
    @usableFromInline
    package func endReading() { unsafe cuffd_rwlock_end_reading(lock) }

    @usableFromInline
    package func endWriting() { unsafe cuffd_rwlock_end_writing(lock) }

    /// Calls while nobody writes.
    @inlinable
    package func withReadLock<Result: ~Copyable, Failure: Error>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        lockForReading()
        defer { endReading() }
        return try body()
    }

    /// Calls while nobody else reads or writes.
    @inlinable
    package func withWriteLock<Result: ~Copyable, Failure: Error>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        lockForWriting()
        defer { endWriting() }
        return try body()
    }
}
