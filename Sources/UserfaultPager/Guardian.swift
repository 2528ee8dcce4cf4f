public import SystemPackage
internal import UserfaultFD

/// What stands by while another process serves the memory of any number of clients.
///
/// When a pager's process dies, its descriptors close, and its clients would read **zeros** in place of pages that were
/// not loaded. A guardian, in a process of its own, holds duplicates of the descriptors, so that the clients wait
/// instead, and kills them before it lets go. One is enough for all clients of a process.
///
/// The process that serves is at one end of a pair of Unix sockets, and has its clients guarded with a ``GuardianLink``.
/// The guardian's process is at the other end:
///
/// ```swift
/// func standBy(_ server: Owner, over socket: FileDescriptor) throws {
///     let killed = try Guardian(of: server, over: socket).stand()
///     print("the server has ended, and \(killed) of its clients with it")
/// }
/// ```
public struct Guardian: ~Copyable, Sendable {
    private let pager: Owner
    private let socket: FileDescriptor
    private let signs: Signs

    /// A guardian that is to stand.
    ///
    /// - Parameters:
    ///   - pager: The process that serves; not this one, with which the guardian would die.
    ///   - socket: A Unix stream socket, at whose other end the process has a ``GuardianLink``; it stays the caller's.
    /// - Throws: ``PagerError/configuration(_:)`` if the pager's process is this one, ``PagerError/file(_:path:)`` if
    ///   a descriptor cannot be watched.
    public init(of pager: Owner, over socket: FileDescriptor) throws(PagerError) {
        guard !pager.isCurrent else { throw .configuration("a guardian dies with the process that it is in") }
        let signs = try Signs()
        try asFileError { () throws(UserfaultError) in
            try signs.watch(pager.pidfd, as: .pager)
            try signs.watch(socket.rawValue, as: .socket)
        }
        self.pager = pager
        self.socket = socket
        self.signs = signs
    }

    /// Guards clients until the pager's process ends, and does not let them see zeros then.
    ///
    /// Blocks its thread. Clients that end by themselves, or that the pager dismisses, are forgotten.
    ///
    /// - Returns: How many clients were killed.
    public consuming func stand() -> Int {
        var clients: [UInt64: Client] = [:]
        while true {
            switch signs.wait() {
            case nil: continue
            case .client(let id): forget(id, &clients)
            case .socket: if !takeMessage(&clients) { signs.forget(socket.rawValue) }
            case .pager:
                // What it said before its end counts.
                while hasMessage, takeMessage(&clients) {}
                return Self.end(clients)
            }
        }
    }

    private static func end(_ clients: [UInt64: Client]) -> Int {
        for client in clients.values { try? client.process.kill() }
        // Their descriptors go with these values: not before the processes are gone.
        return clients.values.count { (try? $0.process.waitForExit()) ?? false }
    }

    /// Guards a client no more.
    ///
    /// Its process is shared with the one that serves: closing a descriptor of it does not end that it is watched.
    private func forget(_ id: UInt64, _ clients: inout [UInt64: Client]) {
        guard let client = clients.removeValue(forKey: id) else { return }
        signs.forget(client.process.descriptor.rawValue)
    }

    private var hasMessage: Bool { ((try? poll(socket.rawValue, until: Deadline(after: .zero))) ?? 0) != 0 }

    /// - Returns: `false` at the end of the stream.
    private func takeMessage(_ clients: inout [UInt64: Client]) -> Bool {
        do throws(UserfaultError) {
            var message = try DescriptorPassing.receive(upTo: GuardianMessage.bytes, from: socket)
            guard let words = GuardianMessage(bytes: message.payload) else { return false }
            switch GuardianMessage.Request(rawValue: words.first) {
            case .guard:
                let result = take(words.second, from: &message, &clients)
                // A process that has died waits for no answer, and what it said afterwards counts.
                try? GuardianMessage(words.second, UInt64(result?.rawValue ?? 0)).send(over: socket)
            case .dismiss: forget(words.second, &clients)
            case nil: return false
            }
            return true
        } catch {
            return false
        }
    }

    /// - Returns: What went wrong.
    private func take(
        _ id: UInt64, from message: inout ReceivedMessage, _ clients: inout [UInt64: Client]
    ) -> Errno? {
        guard !message.isMissingDescriptors else { return .tooManyOpenFiles }
        guard clients[id] == nil else { return .fileExists }
        guard let uffd = message.descriptors.takeFirst() else { return .badFileDescriptor }
        let descriptor = OwnedDescriptor(adopting: uffd)
        guard let pidfd = message.descriptors.takeFirst() else { return .badFileDescriptor }
        let client = Client(descriptor, ProcessHandle(received: OwnedDescriptor(adopting: pidfd)))
        do throws(UserfaultError) {
            try signs.watch(client.process.descriptor.rawValue, as: .client(id))
        } catch {
            return error.errno
        }
        clients[id] = client
        return nil
    }

    private final class Client {
        let process: ProcessHandle
        /// As long as it is open, the threads that wait for pages wait.
        private let uffd: OwnedDescriptor

        init(_ uffd: consuming OwnedDescriptor, _ process: consuming ProcessHandle) {
            self.process = process
            self.uffd = uffd
        }
    }
}

/// What a guardian waits for.
private struct Signs: ~Copyable {
    enum Sign {
        case pager, socket
        case client(UInt64)

        var token: UInt64 {
            switch self {
            case .pager: 0
            case .socket: 1
            case .client(let id): id &+ 2
            }
        }

        init(token: UInt64) {
            self = token == 0 ? .pager : token == 1 ? .socket : .client(token &- 2)
        }
    }

    private let set: PollSet

    init() throws(PagerError) {
        set = try asPagerError { () throws(UserfaultError) in try PollSet() }
    }

    func watch(_ descriptor: Int32, as sign: Sign) throws(UserfaultError) {
        try set.add(FileDescriptor(rawValue: descriptor), token: sign.token)
    }

    func forget(_ descriptor: Int32) { try? set.remove(FileDescriptor(rawValue: descriptor)) }

    /// Waits without a limit.
    func wait() -> Sign? {
        var batch = ReadyBatch(capacity: 1)
        _ = try? set.wait(into: &batch)
        return batch.next().map { Sign(token: $0.token) }
    }
}
