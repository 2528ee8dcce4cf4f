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

    /// Does what `poll(_:_:until:)` does, for a type whose own method `poll` hides that one.
    init(of first: Int32, _ second: Int32, until deadline: Deadline) throws(UserfaultError) {
        let entry = { (fd: Int32) in cuffd_poll_entry(fd: fd, events: CUFFD_POLLIN, ready: 0) }
        var entries: InlineArray<2, cuffd_poll_entry> = [entry(first), entry(second)]
        var span = entries.mutableSpan
        try unsafe span.withUnsafeMutableBufferPointer { (entries) throws(UserfaultError) in
            unsafe try poll(entries, until: deadline)
        }
        (self.first, self.second) = (entries[0].ready, entries[1].ready)
    }
}

/// Waits until one of two descriptors is readable or has an error.
///
/// - Parameters:
///   - first: A descriptor, or -1 for none.
///   - second: Another, or -1 for none.
package func poll(
    _ first: Int32, _ second: Int32, until deadline: Deadline
) throws(UserfaultError) -> PairReadiness {
    try PairReadiness(of: first, second, until: deadline)
}

/// Any number of descriptors that one thread waits for, to read or to write.
package struct PollList: ~Copyable {
    private var entries: [cuffd_poll_entry] = []

    package init() {}

    /// Forgets all descriptors; their places are kept.
    package mutating func removeAll() { entries.removeAll(keepingCapacity: true) }

    /// Adds a descriptor.
    package mutating func append(_ rawDescriptor: Int32, forReading: Bool = true, forWriting: Bool = false) {
        let events = (forReading ? CUFFD_POLLIN : 0) | (forWriting ? CUFFD_POLLOUT : 0)
        entries.append(cuffd_poll_entry(fd: rawDescriptor, events: events, ready: 0))
    }

    /// Adds an eventfd.
    package mutating func append(_ event: borrowing EventFD) { append(event.descriptor.rawValue) }

    /// What the last wait found of a descriptor, by its place, in the bits of `poll(2)`.
    package subscript(_ place: Int) -> Int16 { entries[place].ready }

    /// Waits until a descriptor is ready, or the time is over.
    ///
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/poll``: `EBADF` if a descriptor is not open.
    package mutating func wait(until deadline: Deadline) throws(UserfaultError) {
        var span = entries.mutableSpan
        try unsafe span.withUnsafeMutableBufferPointer { (entries) throws(UserfaultError) in
            unsafe try poll(entries, until: deadline)
        }
    }
}

private func poll(
    _ entries: UnsafeMutableBufferPointer<cuffd_poll_entry>, until deadline: Deadline
) throws(UserfaultError) {
    while true {
        let count = unsafe cuffd_poll_entries(
            entries.baseAddress, CInt(truncatingIfNeeded: entries.count), deadline.remainingMilliseconds)
        // A signal, or a limit that one call cannot express: wait for what is left.
        if count == -Errno.interrupted.rawValue || (count == 0 && !deadline.hasPassed) { continue }
        _ = try answer(to: .poll) { count }
        // poll(2) reports a closed descriptor as ready; everybody who asks means an open one.
        for index in entries.indices where unsafe entries[index].ready & CUFFD_POLLNVAL != 0 {
            throw UserfaultError(.poll, errno: .badFileDescriptor)
        }
        return
    }
}

/// How many bytes can be read of a socket without waiting; 0 if the kernel does not say.
package func bytesReadable(_ rawDescriptor: Int32) -> Int { max(0, Int(cuffd_bytes_readable(rawDescriptor))) }

extension Int16 {
    /// Whether `poll(2)` says that there is something to read.
    package var isReadable: Bool { self & CUFFD_POLLIN != 0 }
    /// Whether `poll(2)` says that the descriptor has an error.
    package var hasError: Bool { self & CUFFD_POLLERR != 0 }
    /// Whether `poll(2)` says that there is room to write, and nothing else.
    package var isOnlyWritable: Bool { self == CUFFD_POLLOUT }
}
