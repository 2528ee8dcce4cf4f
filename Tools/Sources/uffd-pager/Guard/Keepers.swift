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
    /// Room for names in the environment, in which a keeper of an earlier version passes them.
    private let names: Mutex<NamesRoom>?
    private let logger: Logger
    private let failure: Atomic<Bool>

    /// Whether this server, or one that has died, has not served a client to its end: the exit code says so, whoever ends
    /// last.
    var hasFailed: Bool { failure.load(ordering: .relaxed) }

    /// Whether this process has a guard, and whether it has a keeper.
    static var hasGuard: Bool { getenv(guardVariable) != nil }
    static var hasKeeper: Bool { getenv(keeperVariable) != nil }

    /// - Returns: `nil` if nobody guards this process.
    init?(_ survival: SurvivalOptions? = nil, logger: Logger) {
        guard let guardian = KeepLink(Self.guardVariable) else { return nil }
        self.guardian = guardian
        keeper = KeepLink(Self.keeperVariable)
        manager = survival?.fdStore == true ? ManagerStore() : nil
        names = keeper == nil || PassedDescriptors.haveNamesInFile ? nil : Mutex(NamesRoom())
        self.logger = logger
        failure = Atomic(!PassedDescriptors.take(KeptName.failed).map { close($0) }.isEmpty)
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
    ///   - file: The client's memory file: a name of its own tells it from what is ours, whatever its client calls it.
    /// - Throws: ``KeepError``: without a guard, the client must not be served.
    func keepClient(_ id: Int, uffd: Int32, process: Int32, further: [Int32] = [], file: Int32? = nil) throws {
        let name = KeptName.client(id)
        // An earlier server may have died before the manager took its word that nobody needs what is there, or before it
        // had a client kept after its file.
        manager?.remove(name)
        forgetFile(of: id)
        if let file { try keep(KeptName.file(id), [file]) }
        // First for the successor: it kills a client whose service had not begun. The guard kills nobody while one may come.
        try keep(name, [uffd, process] + further)
        try guardian.put(name, [uffd, process])
    }

    /// Has descriptors kept for a successor, which stay the caller's.
    ///
    /// - Throws: ``KeepError/refused`` if somebody cannot keep them; who is gone is only logged.
    func keep(_ name: String, _ numbers: [Int32]) throws {
        try names?.withLock { (names) throws(KeepError) in try names.take(numbers.count, under: name) }
        do {
            try keeper?.put(name, numbers)
        } catch KeepError.gone {
            logger.error("the keeper is gone", metadata: ["name": "\(name)"])
        } catch {
            names?.withLock { $0.giveBack(numbers.count, under: name) }
            throw error
        }
        try manager?.put(name, numbers)
    }

    /// Has descriptors kept in place of those that were under the name.
    ///
    /// - Parameter least: What of them stays kept if there is no room for all.
    /// - Throws: As ``keep(_:_:)``.
    func replace(_ name: String, with numbers: [Int32], atLeast least: [Int32]) throws {
        try names?.withLock { (names) throws(KeepError) in
            try names.take(numbers.count, under: name, isReplacing: true)
        }
        do {
            try keeper?.replace(name, with: numbers)
        } catch KeepError.gone {
            logger.error("the keeper is gone", metadata: ["name": "\(name)"])
        }
        try manager?.replace(name, with: numbers, atLeast: least)
    }

    /// Has it kept that there is something.
    func keep(_ name: String) throws {
        guard expectsSuccessor else { return }
        let file = try Memfd.note()
        try keep(name, [file.withUnsafeDescriptor { $0.rawValue }])
    }

    /// Has it kept that a client was not served to its end.
    func noteFailure() {
        guard !failure.exchange(true, ordering: .relaxed), expectsSuccessor, let file = try? Memfd.note() else {
            return
        }
        file.withUnsafeDescriptor { number in
            keeper?.tell(KeptName.failed, [number.rawValue])
            manager?.tell(KeptName.failed, [number.rawValue])
        }
    }

    /// The exit code tells it: nobody needs what is kept.
    func forgetFailure() {
        guard hasFailed else { return }
        forget(KeptName.failed)
        flush()
    }

    /// Waits until everybody has taken what was told: systemd drops what a process has sent that has ended.
    func flush() {
        do { try manager?.waitUntilTaken() } catch {
            logger.error("systemd is not told", metadata: ["error": "\(error)"])
        }
    }

    /// Tells that nobody needs what is kept under a name.
    func forget(_ name: String) {
        if KeptName.isClient(name), !guardian.remove(name) { logger.error("the guard is gone") }
        if KeptName.isArrival(name) { guardian.remove(name) }
        forgetSuccessors(name)
        if let id = KeptName.client(in: name) { forgetFile(of: id) }
    }

    /// Tells that nobody needs a client's memory file.
    func forgetFile(of id: Int) {
        forgetSuccessors(KeptName.file(id))
    }

    /// Forgets what was kept for a successor.
    private func forgetSuccessors(_ name: String) {
        keeper?.remove(name)
        manager?.remove(name)
        names?.withLock { _ = $0.remove(name) }
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
