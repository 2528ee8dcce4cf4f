#if NBD
internal import CNBD
internal import SystemPackage

/// One command that is outstanding.
final class Flight {
    enum Purpose {
        /// A part of a read.
        case part(Read)
        /// The runs of a window, from an offset on.
        case window(Int, from: Int)
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
    /// What is known of the window already.
    var known: [BlockRun] = []
    /// The runs that the server told, as lengths.
    fileprivate(set) var runs: [(length: UInt32, isZero: Bool)] = []
    /// Where they end, in bytes from the range's start.
    private var told = 0
    /// How often the server was asked about the window before.
    var asks = 0

    /// Takes runs, unless the server has told them already: it may tell them once.
    fileprivate func learn(_ words: UnsafeMutableBufferPointer<UInt32>) {
        guard runs.isEmpty else { return connection.doubt("the server told twice where its holes are") }
        for index in stride(from: 0, to: words.count - 1, by: 2) where told < range.count {
            // Only what reads as zeros is a hole: unallocated bytes may read as anything.
            let isZero = unsafe words[index + 1] & UInt32(LIBNBD_STATE_ZERO) != 0
            unsafe runs.append((words[index], isZero))
            told += unsafe Int(words[index])
        }
    }

    init(_ purpose: Purpose, _ range: Range<Int>, on connection: Connection) {
        self.purpose = purpose
        self.range = range
        self.connection = connection
        received = Coverage(of: range)
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
