import Logging
import Synchronization
import UserfaultFD
import UserfaultHandoff
import UserfaultPager

// How clients come: those that hand their memory over, and those of a server that has died.

extension SessionTable {
    /// Serves what a client has handed over; called on a thread of its own.
    func take(_ memory: consuming HandedMemory, as settings: MachineSettings) {
        let owner = memory.owner
        let client = memory.client
        let process = memory.peer.process
        let (id, complaint) = state.withLock { state in
            let complaint =
                state.closing != nil
                ? "the server is ending" : limits.complaint(about: process, beside: state.unsettled.values)
            let id = state.nextID
            if complaint == nil {
                state.unsettled[id] = process
                state.nextID += 1
            }
            return (id, complaint)
        }
        // From now on the client does not read zeros, whatever goes wrong.
        let descriptors = Result { () throws(HandoffError) in try ClientDescriptors(of: memory) }
        if let complaint {
            noteFailure()
            let metadata: Logger.Metadata = [
                "machine": "\(settings.name)", "process": "\(process)", "reason": "\(complaint)",
            ]
            if client.isHeard {
                logger.error("a client is refused", metadata: metadata)
                return memory.refuse(complaint)
            }
            // One that cannot be told that nobody serves it would wait for ever.
            logger.error("a client is not taken over, \(Fate(of: owner))", metadata: metadata)
            return letGo(of: owner) { withExtendedLifetime((client, descriptors)) {} }
        }
        let logger = logger.of(settings.name, id, process)
        do {
            let descriptors = try descriptors.get()
            let wasPaused = isPaused(machine: settings.name)
            let session = try Session(
                id, serving: memory, descriptors, as: settings, on: runtime, isPaused: wasPaused, keptBy: keepers,
                logger: logger
            ) { [weak self] in self?.end(id) }
            if !MayKill.process(descriptors.process) {
                logger.warning(
                    "the client is another user's, or in another PID namespace: it cannot be killed if its memory is lost"
                )
            }
            enter(session, wasPaused: wasPaused, logger)
        } catch {
            noteFailure()
            let metadata: Logger.Metadata = ["error": "\(error)"]
            if client.isHeard {
                logger.error("a client cannot be served", metadata: metadata)
                // One that was told the reason already hears no other.
                client.refuse("\(error)")
                return settle(id)
            }
            logger.error("a client cannot be served, \(Fate(of: owner))", metadata: metadata)
            // Its arrival is over when it is killed.
            letGo(of: owner) { [self] in withExtendedLifetime((client, descriptors)) { settle(id) } }
        }
    }

    /// Goes on with a client whose server has died, before the first one comes.
    func resume(_ client: KeptClient, as settings: (String) throws -> MachineSettings) {
        let id = client.id
        state.withLock { state in
            state.unsettled[id] = client.process
            state.nextID = max(state.nextID, id + 1)
        }
        do {
            let owner = try client.owner()
            var logger = logger.of(client.machine ?? "?", id, client.process)
            if try owner.waitForEnd(within: .zero) {
                logger.info("ended while nobody served")
                return settle(id)
            }
            do {
                let memory = try client.memory(of: owner)
                let settings = try settings(memory.record.machine)
                logger[metadataKey: "machine"] = "\(settings.name)"
                let isPaused = isPaused(machine: settings.name)
                let session = try Session(
                    id, resuming: memory, as: settings, on: runtime, isPaused: isPaused, process: client.process,
                    keptBy: keepers, logger: logger
                ) { [weak self] in self?.end(id) }
                enter(session, wasPaused: isPaused, logger)
            } catch {
                noteFailure()
                logger.error("a client cannot be served any more, \(Fate(of: owner))", metadata: ["error": "\(error)"])
                letGo(of: owner) { [self] in withExtendedLifetime(client) { settle(id) } }
            }
        } catch {
            logger.error("a client is lost", metadata: ["session": "\(id)", "error": "\(error)"])
            settle(id)
        }
    }

    private func enter(_ session: Session, wasPaused: Bool, _ logger: Logger) {
        let id = session.id
        logger.info("serving", metadata: ["bytes": "\(session.byteCount)", "regions": "\(session.regionCount)"])
        let closing = state.withLock { state in
            state.sessions[id] = session
            return state.closing
        }
        // That may have changed before it was in the table.
        paused.withLock { paused in
            let isPaused = paused.contains(session.settings.name)
            if isPaused != wasPaused { session.setPaused(isPaused) }
        }
        if let closing { return end(id, .load, within: closing) }
        // It may have ended before it was in the table.
        if (try? session.owner.waitForEnd(within: .zero)) == true { return end(id) }
        begin(session, logger)
    }

    /// Lets a client's descriptors go that was killed, only when the process is gone: nobody is to read zeros.
    ///
    /// The kernel may hold it up, and other clients do not wait for that.
    private func letGo(of owner: Owner, _ body: @escaping @Sendable () -> Void) {
        Task {
            await onOwnThread { _ = try? owner.waitForEnd(within: LostProcesses.patience) }
            body()
        }
    }

    private func begin(_ session: Session, _ logger: Logger) {
        do throws(PagerError) {
            if let set = session.settings.prefetch { try session.pager.replay(set) }
        } catch {
            if error != .notRunning, error != .ownerGone {
                logger.error("nothing is prefetched", metadata: ["error": "\(error)"])
            }
        }
        guard session.settings.populates else { return }
        Task {
            if let failure = await session.populate(within: nil) {
                logger.error("not all memory could be loaded", metadata: ["error": "\(failure)"])
            } else {
                logger.info("all memory is loaded")
            }
        }
    }
}
