import FoundationEssentials
import Glibc
import Logging
import Synchronization
import UserfaultHandoff
import UserfaultPager

/// Why the control socket says no.
enum ControlError: Error {
    case exists(String)
    case unknown(String)
    case tooMany(Int, limit: Int)
    case tooManyRequests(Int)
    case tooLong(Int)
    case ending
    case refused(String)
    case failed(Failure)

    var text: String {
        switch self {
        case .exists(let name): "there is a machine '\(name)' already"
        case .unknown(let name): "there is no machine '\(name)'"
        case .tooMany(let count, let limit): "there are \(count) machines already, of at most \(limit)"
        case .tooManyRequests(let limit): "\(limit) such requests wait already"
        case .tooLong(let limit): "the request is longer than \(limit) bytes"
        case .ending: "the server is ending"
        case .refused(let text): text
        case .failed(let failure): failure.description
        }
    }
}

/// The machines by their names: each with a socket at which its monitor connects.
final class MachineRegistry: Sendable {
    private struct Entry {
        let specification: MachineSpecification
        let settings: MachineSettings
        /// `nil` in a successor that cannot listen.
        let listening: HandoffServer.Listening?
    }

    private let entries = Mutex<[String: Entry?]>([:])
    private let isClosed = Mutex(false)
    private let records = RecordPlaces()
    private let front: FrontDoor
    /// Keeps the memory of machines that say which version of it they have.
    private let cache: ChunkCache?
    let sessions: SessionTable
    private let limit: Int
    private let logger: Logger

    init(front: FrontDoor, sessions: SessionTable, cache: ChunkCache?, limit: Int, logger: Logger) {
        self.front = front
        self.cache = cache
        self.sessions = sessions
        self.limit = limit
        self.logger = logger
    }

    /// Begins to listen for a machine.
    ///
    /// - Parameter isKept: Whether a server has died that had the machine: it stays, whatever the limit is now.
    func add(_ specification: MachineSpecification, isKept: Bool = false) throws(ControlError) {
        let name = specification.name
        if isClosed.withLock({ $0 }) { throw .ending }
        // The name is taken before the socket is made, so that two that add the same do not both make one.
        let error: ControlError? = entries.withLock { entries in
            if entries[name] != nil { return .exists(name) }
            if entries.count >= limit, !isKept { return .tooMany(entries.count, limit: limit) }
            entries[name] = .some(nil)
            return nil
        }
        if let error { throw error }
        do {
            var logger = logger
            logger[metadataKey: "machine"] = "\(name)"
            let extras = Extras(isSuccessor: isKept, logger: logger)
            let settings = MachineSettings(
                name: name, memory: try memory(of: specification, extras, logger),
                prefetch: try extras.open("prefetching") { try specification.prefetch.map(WorkingSetFile.read) },
                record: try extras.open("a record") {
                    try specification.record.map { try records.open($0, for: name) }
                },
                onFailure: specification.onFailure, populates: specification.populate, retries: specification.retries)
            let peers = PeerPolicy(allowingUsers: specification.allowUsers, groups: specification.allowGroups)
            // A socket that a server has shut at its end is made again: its path may be another program's by now.
            let listening = try extras.open("its socket") {
                try front.open(
                    name, at: specification.socket, mode: try specification.mode(), for: specification.format,
                    from: peers, description: Array(try JSONEncoder().encode(specification))
                ) { [sessions] memory in sessions.take(memory, as: settings) }
            }
            entries.withLock {
                $0[name] = Entry(specification: specification, settings: settings, listening: listening)
            }
            if listening != nil { logger.info("listening", metadata: ["socket": "\(specification.socket)"]) }
        } catch {
            front.forget(name)
            records.leave(name)
            _ = entries.withLock { $0.removeValue(forKey: name) }
            if let failure = error as? Failure { throw .failed(failure) }
            throw .refused("\(error)")
        }
    }

    /// Adds no more machines.
    func close() { isClosed.withLock { $0 = true } }

    /// Adds the machines of a server that has died.
    func addKept() {
        for kept in PassedDescriptors.names.sorted() {
            guard let name = KeptName.machine(in: kept) else { continue }
            var specification: MachineSpecification?
            do {
                specification = try MachineSpecification(kept: kept)
                try add(specification!, isKept: true)
            } catch {
                logger.error("a machine is lost", metadata: ["machine": "\(name)", "error": "\(error)"])
                front.drop(
                    name, at: specification?.socket, for: specification?.format ?? .firecracker,
                    from: PeerPolicy(allowingUsers: specification?.allowUsers, groups: specification?.allowGroups))
            }
            // Its description.
            for number in PassedDescriptors.take(kept) { Glibc.close(number) }
        }
    }

    /// How the clients of a machine are served.
    func settings(of name: String) throws(ControlError) -> MachineSettings {
        guard let entry = entries.withLock({ $0[name] ?? nil }) else { throw .unknown(name) }
        return entry.settings
    }

    private func memory(
        of specification: MachineSpecification, _ extras: Extras, _ logger: Logger
    ) throws -> MemorySource {
        let kept = try specification.cacheRevision.flatMap { revision in
            try extras.open("the cache") {
                guard let cache else {
                    throw Failure(
                        .unavailable, "cacheRevision needs a server that was started with --cache or --cache-memory")
                }
                return MemoryCache(chunks: cache, revision: revision)
            }
        }
        let checksums = try specification.checksums.map(ChecksumFile.init)
        return try MemorySource(
            specification.memory, tls: specification.tls,
            keeping: MemorySource.Keeping(
                cache: kept, revision: specification.cacheRevision, checksums: checksums, waits: extras.isSuccessor),
            logger: logger)
    }

    /// Stops listening for a machine, and ends its sessions.
    ///
    /// - Throws: ``ControlError/refused(_:)`` if memory was lost that was to be loaded; the machine is removed all the same.
    func remove(_ name: String, ending: SessionEnding, within limit: Duration?) async throws(ControlError) {
        guard let entry = entries.withLock({ $0[name] ?? nil }) else { throw .unknown(name) }
        // Until clients that have just come are in the table.
        if let listening = entry.listening { await onOwnThread { [front] in front.shut(listening) } }
        let ended = await sessions.end(ofMachine: name, ending, within: limit)
        // Who removes a machine may want to read its record; the disk may hang.
        _ = await entry.settings.record?.flush(within: EndingTime.rest)
        // Of several requests, one removes it: when the others go on, another machine may have the name.
        let isFirst = entries.withLock { entries in
            guard let now = entries[name] ?? nil, now.listening == entry.listening else { return false }
            entries[name] = .some(nil)
            return true
        }
        if isFirst {
            sessions.forget(machine: name)
            front.forget(name)
            records.leave(name)
            _ = entries.withLock { $0.removeValue(forKey: name) }
            logger.info("removed", metadata: ["machine": "\(name)"])
        }
        if let loss = ended.loss { throw .refused("the machine is removed, but \(loss)") }
    }

    /// Waits until records are written, but no longer than that.
    func flushRecords(within limit: Duration) async {
        let records = entries.withLock { $0.values.compactMap { $0?.settings.record } }
        await sessions.flush(records, within: limit)
    }

    /// Loads what is left of a machine's sessions, and lets go of them; new ones may come.
    ///
    /// - Throws: ``ControlError/refused(_:)`` if memory was lost; the sessions have ended all the same.
    func drain(_ name: String, within limit: Duration?) async throws(ControlError) -> Int {
        _ = try specification(of: name)
        let ended = await sessions.end(ofMachine: name, .load, within: limit)
        if let loss = ended.loss { throw .refused(loss) }
        return ended.count
    }

    func specification(of name: String) throws(ControlError) -> MachineSpecification {
        guard let entry = entries.withLock({ $0[name] ?? nil }) else { throw .unknown(name) }
        return entry.specification
    }

    func document(of name: String) throws(ControlError) -> MachineDocument {
        document(try specification(of: name))
    }

    private func document(_ specification: MachineSpecification) -> MachineDocument {
        let name = specification.name
        return MachineDocument(
            specification, sessions.sessions(ofMachine: name), sessions.totals(ofMachine: name),
            isPaused: sessions.isPaused(machine: name))
    }

    var documents: [MachineDocument] {
        let all = entries.withLock { $0.values.compactMap { $0?.specification } }
        return all.sorted { $0.name < $1.name }.map(document)
    }

    /// Lets nothing change a page of a machine, or goes on.
    func setPaused(_ name: String, _ isPaused: Bool) throws(ControlError) -> Int {
        _ = try specification(of: name)
        do {
            return try sessions.setPaused(machine: name, isPaused)
        } catch {
            throw .refused("\(error)")
        }
    }

    /// What Prometheus reads.
    var metrics: String { PrometheusText(documents, cache?.statistics).text }

    /// Loads pages in the background, in all sessions of a machine.
    func prefetch(_ name: String, _ path: String) throws(ControlError) -> Int {
        _ = try specification(of: name)
        do {
            let set = try WorkingSetFile.read(path)
            let running = sessions.sessions(ofMachine: name).filter { !$0.isEnding }
            for session in running { try session.pager.replay(set) }
            return running.count
        } catch {
            throw .refused("\(error)")
        }
    }

    /// Loads all memory of a machine, and waits for it.
    func populate(_ name: String, within limit: Duration?) async throws(ControlError) -> Int {
        _ = try specification(of: name)
        let running = sessions.sessions(ofMachine: name).filter { !$0.isEnding }
        let failure = await withTaskGroup(of: String?.self) { group in
            for session in running { group.addTask { await session.populate(within: limit) } }
            return await group.reduce(into: nil as String?) { $0 = $0 ?? $1 }
        }
        if let failure { throw .refused(failure) }
        return running.count
    }
}
