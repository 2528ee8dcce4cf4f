import ArgumentParser
import CPagerSupport
import Glibc
import SystemPackage
import UserfaultFD

/// Waits for what happens to a child, and for signals.
struct ChildWatch: ~Copyable {
    private enum Token: UInt64 {
        case signal, child, socket
    }

    private let set: PollSet
    private let signals: FileDescriptor
    private let maskBefore: sigset_t
    private var batch = ReadyBatch(capacity: 4)

    /// Takes this thread's signals from now on.
    init() throws {
        var before = sigset_t()
        let number = cps_signals(&before)
        guard number >= 0 else { throw Failure(.system, "no signals: \(Errno(rawValue: -number))") }
        let signals = FileDescriptor(rawValue: number)
        let set = try PollSet()
        try set.add(signals, token: Token.signal.rawValue)
        self.set = set
        self.signals = signals
        maskBefore = before
    }

    /// The signal mask for a child.
    ///
    /// A successor has clients from its start. A signal must not kill it before it has a handler: it starts with the signals
    /// blocked that this thread takes, and has ``StopSignals`` before its main thread takes signals.
    func mask(forChildWith shelf: Shelf) -> sigset_t {
        var mask = maskBefore
        if shelf.isForSuccessor { pthread_sigmask(SIG_BLOCK, nil, &mask) }
        return mask
    }

    func watch(_ child: borrowing Child) throws {
        try set.add(child.process, token: Token.child.rawValue)
        try set.add(child.socket, token: Token.socket.rawValue)
    }

    func forgetProcess(of child: borrowing Child) { try? set.remove(child.process) }
    func forgetSocket(of child: borrowing Child) { try? set.remove(child.socket) }

    /// Takes the next event; the child's messages are put on a shelf.
    ///
    /// - Parameter timeout: How long to wait; `nil` waits without a limit.
    /// - Returns: `nil` if the time is over.
    mutating func next(
        timeout: Duration? = nil, socket: FileDescriptor?, _ shelf: inout Shelf
    ) throws -> ChildEvent? {
        while true {
            if let ready = batch.next() {
                switch Token(rawValue: ready.token) {
                case .signal:
                    var isFromTerminal: Int32 = 0
                    let signal = cps_next_signal(signals.rawValue, &isFromTerminal)
                    if signal > 0 { return .signal(number: signal, isFromTerminal: isFromTerminal != 0) }
                case .child: return .ended
                case .socket:
                    guard let socket else { continue }
                    return shelf.take(messageFrom: socket) ? .message : .socketClosed
                case nil: continue
                }
            } else if try set.wait(into: &batch, timeout: timeout) == 0 {
                return nil
            }
        }
    }
}
