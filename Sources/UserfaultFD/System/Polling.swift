internal import CUserfaultFD
internal import SystemPackage

/// Waits until a descriptor is readable or has an error.
///
/// - Returns: What is ready, in the bits of `poll(2)`; 0 if the time is over.
/// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/poll``: `EBADF` if the descriptor is not open.
package func poll(_ rawDescriptor: Int32, until deadline: Deadline) throws(UserfaultError) -> Int16 {
    try poll(rawDescriptor, -1, until: deadline).first
}

/// What `poll(2)` says of two descriptors.
package struct PairReadiness: Sendable {
    package let first: Int16
    package let second: Int16
}

/// Waits until one of two descriptors is readable or has an error.
///
/// - Parameters:
///   - first: A descriptor, or -1 for none.
///   - second: Another, or -1 for none.
package func poll(
    _ first: Int32, _ second: Int32, until deadline: Deadline
) throws(UserfaultError) -> PairReadiness {
    var ready = InlineArray<2, Int16>(repeating: 0)
    while true {
        var span = ready.mutableSpan
        let count = unsafe span.withUnsafeMutableBufferPointer { ready in
            unsafe cuffd_poll2(first, second, CUFFD_POLLIN, deadline.remainingMilliseconds, ready.baseAddress)
        }
        // A signal, or a limit that one call cannot express: wait for what is left.
        if count == -Errno.interrupted.rawValue || (count == 0 && !deadline.hasPassed) { continue }
        _ = try answer(to: .poll) { count }
        // poll(2) reports a closed descriptor as ready; everybody who asks means an open one.
        guard (ready[0] | ready[1]) & CUFFD_POLLNVAL == 0 else {
            throw UserfaultError(.poll, errno: .badFileDescriptor)
        }
        return PairReadiness(first: ready[0], second: ready[1])
    }
}

extension Int16 {
    /// Whether `poll(2)` says that there is something to read.
    package var isReadable: Bool { self & CUFFD_POLLIN != 0 }
    /// Whether `poll(2)` says that the descriptor has an error.
    package var hasError: Bool { self & CUFFD_POLLERR != 0 }
}
