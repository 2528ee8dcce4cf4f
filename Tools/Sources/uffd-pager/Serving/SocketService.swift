import ArgumentParser
import Logging
import UserfaultHandoff

/// One socket, at which any number of clients connect that are restored from the same file.
struct SocketService {
    let socket: String
    let format: HandoffFormat
    let settings: MachineSettings
    let options: MachineOptions
    let endsWithFirst: Bool
    let keepers: Keepers?
    let logger: Logger

    /// Serves until a signal comes, or the first client has ended; then loads what is left.
    ///
    /// - Throws: ``Failure``, and ``ExitCode/failure`` if a client could not be served to its end.
    func run() async throws {
        let sessions = try SessionTable(limits: options.limits, keptBy: keepers, logger: logger)
        let front = try FrontDoor(keptBy: keepers, logger: logger)
        defer { front.close() }
        let access = options.access
        let peers = try access.peers
        let extras = Extras(isSuccessor: PassedDescriptors.isSuccessor, logger: logger)
        let listening = try extras.open("its socket") {
            try front.open(
                settings.name, at: socket, mode: access.socketMode?.value, for: format, from: peers
            ) { [settings] memory in
                sessions.take(memory, as: settings)
            }
        }
        let signals = StopSignals.shared.stream
        KeptClient.endArrivals(keepers, logger)
        for client in KeptClient.takeAll(from: keepers) { sessions.resume(client) { _ in settings } }
        try PassedDescriptors.checkSockets(listeningAt: socket, logger)
        try front.start()
        if listening != nil { logger.info("listening", metadata: ["socket": "\(socket)"]) }
        Systemd.notify("READY=1", logger: logger)
        await withTaskGroup(of: Void.self) { group in
            group.addTask { for await _ in signals { return } }
            if endsWithFirst { group.addTask { for await _ in sessions.departures { return } } }
            await group.next()
            group.cancelAll()
        }
        Systemd.notify("STOPPING=1", logger: logger)
        front.close()
        let ending = EndingTime(loading: .seconds(options.drain))
        await sessions.close(within: .seconds(options.drain))
        front.forgetAll()
        keepers?.flush()
        await sessions.flush([settings.record].compactMap(\.self), within: ending.left)
        settings.memory.flush(within: ending.left)
        let failures = sessions.failures + front.failures
        keepers?.forgetFailure()
        if failures > 0 { throw ExitCode.failure }
    }
}
