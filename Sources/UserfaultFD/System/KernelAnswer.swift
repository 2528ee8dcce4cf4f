package import SystemPackage

/// Turns what a function of the kernel layer returned, a value or `-errno`, into a value or a typed error.
///
/// Every system call of this module goes through here, so that no `-errno` is ever mistaken for a value.
///
/// - Parameters:
///   - operation: What the error says was asked.
///   - retryOnInterrupt: Whether `EINTR` repeats the call. Only for calls that a signal interrupts before they did
///     anything: `close(2)` must not be repeated, and calls with a time limit must compute the remaining time again.
///   - circumstance: What else is known of a failure; only asked on failure.
@inline(__always)
func answer<Value: SignedInteger & FixedWidthInteger>(
    to operation: UserfaultError.Operation,
    retryOnInterrupt: Bool = false,
    circumstance: (Errno) -> UserfaultError.Circumstance = { _ in .none },
    _ call: () -> Value
) throws(UserfaultError) -> Value {
    while true {
        let value = call()
        if value >= 0 { return value }
        let errno = Errno(rawValue: CInt(-value))
        if retryOnInterrupt && errno == .interrupted { continue }
        throw UserfaultError(operation, errno: errno, circumstance: circumstance(errno))
    }
}

/// Repeats a call that may transfer fewer bytes than asked for, until all are transferred.
///
/// A signal repeats the call: what was transferred before it is kept.
///
/// - Parameter call: Transfers bytes from an offset on, and returns how many, 0 at the end, or `-errno`.
/// - Throws: ``UserfaultError`` with the bytes that were transferred before the failure; `ENODATA` at the end.
@inline(__always)
func transferAll(
    _ count: Int, _ operation: UserfaultError.Operation, _ call: (_ done: Int) -> Int
) throws(UserfaultError) {
    var done = 0
    while done < count {
        let value = call(done)
        if value == -Int(Errno.interrupted.rawValue) { continue }
        guard value > 0 else {
            let errno = value == 0 ? Errno.noData : Errno(rawValue: CInt(-value))
            throw UserfaultError(operation, errno: errno, bytesCompleted: done)
        }
        done += value
    }
}

/// Compares numbers of errors in a `switch`: with `Errno`'s own operator each comparison takes memory for an `any Error` in
/// programs that are not optimized.
package func ~= (pattern: Errno, errno: Errno) -> Bool { pattern == errno }
