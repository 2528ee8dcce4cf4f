#if NBD
internal import CNBD
internal import SystemPackage

/// One command that is outstanding.
final class Flight {
    enum Purpose {
        /// A part of a read.
        case part(Read)
        /// What is in a window.
        case window(Inquiry)
    }

    let purpose: Purpose
    let range: Range<Int>
    private let connection: Connection
    /// What went wrong.
    private(set) var failure: NBDError?
    private var isCompleted = false
    /// Bytes of a read that have come.
    fileprivate var received: Coverage
    /// The server says that it has replied, and has not sent each byte once: it cannot be trusted any more.
    private(set) var breaksProtocol = false

    init(_ purpose: Purpose, _ range: Range<Int>, on connection: Connection) {
        self.purpose = purpose
        self.range = range
        self.connection = connection
        received = Coverage(of: range)
    }

    /// Takes the runs of a window, which the server may tell once.
    fileprivate func learn(_ words: UnsafeMutableBufferPointer<UInt32>) {
        guard case .window(let inquiry) = purpose else { return }
        if unsafe !inquiry.learn(words, of: range.count) {
            connection.doubt("the server told twice where its holes are")
        }
    }

    /// All bytes have come, in one piece.
    var cameWhole: Bool { failure == nil && received.isWhole }

    /// libnbd did not send it, and has let go of it already, which says less than why.
    func refuse(_ error: NBDError) { failure = error }

    /// The server has replied, or the connection was lost.
    fileprivate func complete(_ errno: CInt) {
        isCompleted = true
        let isRead = if case .part = purpose { true } else { false }
        breaksProtocol = isRead && errno == 0 && !received.isComplete
        if breaksProtocol {
            failure = NBDError(
                .connection,
                message: """
                    the server sent \(received.byteCount) of \(range.count) bytes, or some of them twice, and said that this \
                    was all
                    """)
        }
        guard errno != 0 else { return }
        failure = NBDError(isRead ? .read : .extents, errno: Errno(rawValue: errno), message: "the server refused")
    }

    /// libnbd is done with it: it does this exactly once, whether or not there was a reply.
    fileprivate func release() {
        if !isCompleted {
            failure = failure ?? NBDError(.connection, message: "the connection was given up")
        }
        connection.finish(self)
    }
}

// What libnbd calls: it holds the handle's lock, so that nothing may be asked of the handle here.

func flightCompleted(_ user: UnsafeMutableRawPointer?, _ errno: UnsafeMutablePointer<CInt>?) -> CInt {
    guard let user = unsafe user else { return 1 }
    unsafe Unmanaged<Flight>.fromOpaque(user).takeUnretainedValue().complete(errno?.pointee ?? 0)
    // The command is retired.
    return 1
}

/// A server may send the bytes in pieces: libnbd does not look whether they are all, or some of them twice.
func flightGotChunk(
    _ user: UnsafeMutableRawPointer?, _ bytes: UnsafeRawPointer?, _ count: Int, _ offset: UInt64, _ status: UInt32,
    _ errno: UnsafeMutablePointer<CInt>?
) -> CInt {
    guard let user = unsafe user, status != UInt32(LIBNBD_READ_ERROR) else { return 0 }
    unsafe Unmanaged<Flight>.fromOpaque(user).takeUnretainedValue().received
        .add(Int(clamping: offset)..<Int(clamping: offset) + count)
    return 0
}

func flightReleased(_ user: UnsafeMutableRawPointer?) {
    guard let user = unsafe user else { return }
    unsafe Unmanaged<Flight>.fromOpaque(user).takeRetainedValue().release()
}

func flightGotExtents(
    _ user: UnsafeMutableRawPointer?, _ context: UnsafePointer<CChar>?, _ offset: UInt64,
    _ entries: UnsafeMutablePointer<UInt32>?, _ count: Int, _ errno: UnsafeMutablePointer<CInt>?
) -> CInt {
    guard let user = unsafe user, let entries = unsafe entries, let context = unsafe context,
        unsafe String(cString: context) == LIBNBD_CONTEXT_BASE_ALLOCATION
    else { return 0 }
    let flight = unsafe Unmanaged<Flight>.fromOpaque(user).takeUnretainedValue()
    unsafe flight.learn(UnsafeMutableBufferPointer(start: entries, count: count))
    return 0
}
#endif
