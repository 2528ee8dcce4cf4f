internal import CUserfaultFD
internal import SystemPackage

/// A lock for many readers or one writer, whose readers let a waiting writer go first.
///
/// Not recursive: a reader that asks again while a writer waits waits for ever.
@safe
package struct ReadWriteLock: ~Copyable, @unchecked Sendable {
    // Allocated by C: a lock must not move, and Swift does not know the size of a pthread_rwlock_t on every libc.
    private let lock: OpaquePointer

    package init() throws(UserfaultError) {
        guard let lock = unsafe cuffd_rwlock_create() else { throw UserfaultError(.createLock, errno: .noMemory) }
        unsafe self.lock = lock
    }

    deinit {
        unsafe cuffd_rwlock_destroy(lock)
    }

    @usableFromInline
    package func lockForReading() { unsafe cuffd_rwlock_read(lock) }

    @usableFromInline
    package func lockForWriting() { unsafe cuffd_rwlock_write(lock) }

    @usableFromInline
    package func unlock() { unsafe cuffd_rwlock_unlock(lock) }

    /// Calls while nobody writes.
    @inlinable
    package func withReadLock<Result: ~Copyable, Failure: Error>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        lockForReading()
        defer { unlock() }
        return try body()
    }

    /// Calls while nobody else reads or writes.
    @inlinable
    package func withWriteLock<Result: ~Copyable, Failure: Error>(
        _ body: () throws(Failure) -> Result
    ) throws(Failure) -> Result {
        lockForWriting()
        defer { unlock() }
        return try body()
    }
}
