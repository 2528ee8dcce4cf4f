internal import CUserfaultFD
internal import SystemPackage

/// Bytes over connected stream sockets of any domain.
package enum StreamSocket {
    /// A socket that is connected over TCP.
    ///
    /// - Parameters:
    ///   - address: An IPv4 or IPv6 address, in digits.
    ///   - limit: How long connecting may take, and each sending after it.
    /// - Throws: ``UserfaultError``: `EINVAL` for what is no address; `ECONNREFUSED`, `ETIMEDOUT`, `ENETUNREACH`.
    package static func connect(
        to address: String, port: UInt16, within limit: Duration
    ) throws(UserfaultError) -> OwnedDescriptor {
        let milliseconds = CInt(clamping: limit.wholeNanoseconds / 1_000_000)
        return OwnedDescriptor(
            adopting: try answer(to: .socket) { unsafe cuffd_tcp_connect(address, port, milliseconds) })
    }

    /// Receives bytes until there is no more room.
    ///
    /// - Parameters:
    ///   - room: Where they go.
    ///   - socket: A connected socket.
    ///   - stop: Ends the waiting once it is signalled.
    ///   - deadline: Ends the waiting.
    /// - Returns: How many there are: fewer than there is room for only at the stream's end, or if waiting has ended.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/receive``: `ECONNRESET`.
    @unsafe
    package static func receive(
        into room: UnsafeMutableRawBufferPointer, from socket: borrowing OwnedDescriptor,
        stop: borrowing EventFD, until deadline: Deadline = .never
    ) throws(UserfaultError) -> Int {
        guard let start = room.baseAddress else { return 0 }
        var done = 0
        while done < room.count {
            let ready = try poll(socket.rawValue, stop.descriptor.rawValue, until: deadline)
            guard ready.first != 0, ready.second == 0 else { break }
            let count = try answer(to: .receive, retryOnInterrupt: true) {
                unsafe cuffd_receive(socket.rawValue, start + done, room.count - done)
            }
            if count == 0 { break }
            done += count
        }
        return done
    }
}
