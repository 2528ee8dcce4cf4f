import Glibc
import Synchronization
import SystemPackage
import UserfaultFD

/// The server's end of the socket to a process of this program.
final class KeepLink: Sendable {
    private struct State {
        let socket: FileDescriptor
        var sequence: UInt64
    }

    private let state: Mutex<State>
    /// The socket's number.
    let number: Int32

    /// - Returns: `nil` if the variable names no socket.
    init?(_ variable: String) {
        guard let text = getenv(variable), let number = Int32(String(cString: text)), fcntl(number, F_GETFD) >= 0
        else { return nil }
        _ = fcntl(number, F_SETFD, FD_CLOEXEC)
        unsetenv(variable)
        self.number = number
        var limit = timeval(tv_sec: Int(KeepError.patience.components.seconds), tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(number, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout.size(ofValue: limit)))
        }
        state = Mutex(State(socket: FileDescriptor(rawValue: number), sequence: .random(in: 0 ... .max)))
    }

    /// Waits until it was taken.
    func put(_ name: String, _ numbers: [Int32]) throws(KeepError) { try order(.put(name), numbers) }

    /// Waits until it was taken: all of it, or what there was stays.
    func replace(_ name: String, with numbers: [Int32]) throws(KeepError) { try order(.replace(name), numbers) }

    private func order(_ message: StoreMessage, _ numbers: [Int32]) throws(KeepError) {
        var isTaken: Bool?
        let error = KeepError.retrying {
            state.withLock { state in
                state.sequence &+= 1
                if let error = Self.send(message.text(asking: state.sequence), numbers, over: state.socket) {
                    return error
                }
                isTaken = Self.answer(to: state.sequence, from: state.socket)
                return nil
            }
        }
        if error == .tooManyReferences { throw .congested }
        guard let isTaken else { throw .gone }
        guard isTaken else { throw .refused }
    }

    /// - Returns: `nil` if nobody is there.
    private static func answer(to sequence: UInt64, from socket: FileDescriptor) -> Bool? {
        while let received = try? DescriptorPassing.receive(upTo: StoreAnswer.byteLimit, from: socket),
            let answer = StoreAnswer(received.payload)
        {
            // Others are for a server that has died, or come after all.
            if answer.sequence == sequence { return answer.isTaken }
        }
        return nil
    }

    /// - Returns: Why it was not sent.
    private static func send(_ text: String, _ numbers: [Int32], over socket: FileDescriptor) -> Errno? {
        let bytes = Array(text.utf8)
        do throws(UserfaultError) {
            try DescriptorPassing.send(
                bytes.span.bytes, descriptors: numbers.map(FileDescriptor.init(rawValue:)), over: socket)
            return nil
        } catch {
            return error.errno
        }
    }

    /// - Returns: `false` if nobody is there.
    @discardableResult
    func remove(_ name: String) -> Bool { tell(.remove(name), []) }

    /// Does not wait until it was taken.
    func tell(_ name: String, _ numbers: [Int32]) { _ = tell(.put(name), numbers) }

    private func tell(_ message: StoreMessage, _ numbers: [Int32]) -> Bool {
        state.withLock { Self.send(message.text, numbers, over: $0.socket) == nil }
    }
}
