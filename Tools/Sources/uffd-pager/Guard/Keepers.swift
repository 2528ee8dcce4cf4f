import CPagerSupport
import Glibc
import Logging
import Synchronization
import SystemPackage
import UserfaultFD
import UserfaultHandoff

/// Who keeps descriptors if this process dies: its guard, which can only kill the clients, and those who hand them to a
/// successor, the ``Keeper`` and systemd's manager.
final class Keepers: Sendable {
    /// The variables that hold the sockets' numbers in the server's environment.
    static let guardVariable = "UFFD_PAGER_GUARD"
    static let keeperVariable = "UFFD_PAGER_KEEPER"

    private let guardian: KeepLink
    private let keeper: KeepLink?
    private let manager: ManagerStore?
    private let logger: Logger

    /// Whether this process has a guard, and whether it has a keeper.
    static var hasGuard: Bool { getenv(guardVariable) != nil }
    static var hasKeeper: Bool { getenv(keeperVariable) != nil }

    /// - Returns: `nil` if nobody guards this process.
    init?(_ survival: SurvivalOptions? = nil, logger: Logger) {
        guard let guardian = KeepLink(Self.guardVariable) else { return nil }
        self.guardian = guardian
        keeper = KeepLink(Self.keeperVariable)
        manager = survival?.fdStore == true ? ManagerStore() : nil
        self.logger = logger
        guard keeper != nil, let process = try? ProcessHandle.current() else { return }
        guardian.remove(KeptName.server)
        _ = process.withUnsafeDescriptor { try? guardian.put(KeptName.server, [$0.rawValue]) }
    }

    /// Whether a successor may come.
    var expectsSuccessor: Bool { keeper != nil || manager != nil }

    /// Has a client's descriptors kept, which stay the caller's, before its first page is filled.
    ///
    /// - Parameters:
    ///   - further: What a successor needs besides.
    /// - Throws: ``KeepError``: without a guard, the client must not be served.
    func keepClient(_ id: Int, uffd: Int32, process: Int32, further: [Int32] = []) throws {
        let name = KeptName.client(id)
        // First for the successor: it kills a client whose service had not begun. The guard kills nobody while one may come.
        try keep(name, [uffd, process] + further)
        try guardian.put(name, [uffd, process])
    }

    /// Has descriptors kept for a successor, which stay the caller's.
    ///
    /// - Throws: ``KeepError/refused`` if somebody cannot keep them; who is gone is only logged.
    func keep(_ name: String, _ numbers: [Int32]) throws {
        do {
            try keeper?.put(name, numbers)
        } catch KeepError.gone {
            logger.error("the keeper is gone", metadata: ["name": "\(name)"])
        }
        try manager?.put(name, numbers)
    }

    /// Has it kept that there is something.
    func keep(_ name: String) throws {
        guard expectsSuccessor else { return }
        let file = try Memfd(name: "pager-note", count: 1)
        try keep(name, [file.withUnsafeDescriptor { $0.rawValue }])
    }

    /// Tells that nobody needs what is kept under a name.
    func forget(_ name: String) {
        if KeptName.isClient(name), !guardian.remove(name) { logger.error("the guard is gone") }
        if KeptName.isArrival(name) { guardian.remove(name) }
        keeper?.remove(name)
        manager?.remove(name)
    }
}

/// Nobody waits until arrivals are kept: what was sent outlives this process, and a client whose descriptors cannot be kept is
/// refused later.
extension Keepers: HandoffArrivals {
    func hasConnected(_ id: UInt64, over socket: FileDescriptor) { tell(id, socket) }
    func willRead(_ id: UInt64, from process: FileDescriptor) { tell(id, process) }
    func hasEnded(_ id: UInt64) { forget(KeptName.arrival(Int(id))) }

    private func tell(_ id: UInt64, _ number: FileDescriptor) {
        let name = KeptName.arrival(Int(id))
        // First for the successor, as a client.
        keeper?.tell(name, [number.rawValue])
        manager?.tell(name, [number.rawValue])
        guardian.tell(name, [number.rawValue])
    }
}

/// Why descriptors are not kept.
enum KeepError: Error, CustomStringConvertible {
    /// Who was to keep them has ended.
    case gone
    /// Who was to keep them has no room.
    case refused

    var description: String {
        switch self {
        case .gone: "the guard is gone"
        case .refused: "the descriptors cannot be kept for a successor: raise the limit of open files"
        }
    }
}

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
        // A process that has stopped counts as gone.
        var limit = timeval(tv_sec: 10, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(number, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout.size(ofValue: limit)))
        }
        state = Mutex(State(socket: FileDescriptor(rawValue: number), sequence: .random(in: 0 ... .max)))
    }

    /// Waits until it was taken.
    func put(_ name: String, _ numbers: [Int32]) throws(KeepError) {
        let answer: StoreAnswer? = state.withLock { state in
            state.sequence &+= 1
            let message = Array(StoreMessage.put(name).text(asking: state.sequence).utf8)
            do {
                try DescriptorPassing.send(
                    message.span.bytes, descriptors: numbers.map(FileDescriptor.init(rawValue:)), over: state.socket)
                while true {
                    let received = try DescriptorPassing.receive(upTo: StoreAnswer.byteLimit, from: state.socket)
                    guard let answer = StoreAnswer(received.payload) else { return nil }
                    // Others are for a server that has died, or come after all.
                    if answer.sequence == state.sequence { return answer }
                }
            } catch {
                return nil
            }
        }
        guard let answer else { throw .gone }
        guard answer.isTaken else { throw .refused }
    }

    /// - Returns: `false` if nobody is there.
    @discardableResult
    func remove(_ name: String) -> Bool { tell(.remove(name), []) }

    /// Does not wait until it was taken.
    func tell(_ name: String, _ numbers: [Int32]) { _ = tell(.put(name), numbers) }

    private func tell(_ message: StoreMessage, _ numbers: [Int32]) -> Bool {
        let message = Array(message.text.utf8)
        return state.withLock { state in
            (try? DescriptorPassing.send(
                message.span.bytes, descriptors: numbers.map(FileDescriptor.init(rawValue:)), over: state.socket))
                != nil
        }
    }
}

/// Systemd's store of descriptors, which does not say what it has no room for.
final class ManagerStore: Sendable {
    private struct State {
        var counts: [String: Int] = [:]
        var room: Int
    }

    private let state: Mutex<State>

    init() {
        // Systemd tells how much it takes from version 254 on.
        let limit = getenv("FDSTORE").flatMap { Int(String(cString: $0)) } ?? .max
        state = Mutex(State(room: limit))
    }

    func put(_ name: String, _ numbers: [Int32]) throws(KeepError) {
        let hasRoom = state.withLock { state in
            guard state.room >= numbers.count else { return false }
            state.room -= numbers.count
            state.counts[name, default: 0] += numbers.count
            return true
        }
        guard hasRoom else { throw .refused }
        guard cps_notify(StoreMessage.put(name).text, numbers, numbers.count) > 0 else { throw .refused }
    }

    /// Does not matter if there is no room.
    func tell(_ name: String, _ numbers: [Int32]) { try? put(name, numbers) }

    func remove(_ name: String) {
        _ = cps_notify(StoreMessage.remove(name).text, nil, 0)
        state.withLock { $0.room += $0.counts.removeValue(forKey: name) ?? 0 }
    }
}
