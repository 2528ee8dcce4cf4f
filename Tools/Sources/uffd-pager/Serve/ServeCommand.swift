import ArgumentParser
import Logging
import UserfaultHandoff
import UserfaultPager

struct ServeCommand: GuardedCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve",
        abstract: "Serve many virtual machines, which are added and removed over a control socket.",
        discussion: """
            The control socket speaks HTTP: see /openapi.json, or use uffd-pager ctl. Metrics for Prometheus are at /metrics.

            On SIGTERM and SIGINT, the memory that is left is loaded, so that the machines go on by themselves. SIGHUP does the \
            same, unless --supervise or --fd-store is given.

            \(ConfigurationKeys.text)

            \(ExitCode.ofServers)
            """
    )

    @Option(help: ArgumentHelp("Listen for requests at this path.", valueName: "path"), completion: .file())
    var control: String

    @Option(help: ArgumentHelp("Add the machines of this file.", valueName: "file"), completion: .file())
    var config: String?

    @Option(help: ArgumentHelp("How long to load at the end what is left; the rest is poisoned.", valueName: "seconds"))
    var drain = 60

    @OptionGroup var keeping: CacheOptions
    @OptionGroup var surviving: SurvivalOptions
    @OptionGroup var access: AccessOptions
    @OptionGroup var log: LogOptions

    var survival: SurvivalOptions? { surviving }

    func validate() throws {
        guard (0...86_400).contains(drain) else { throw ValidationError("--drain needs a number from 0 to 86400") }
    }

    func run() async throws {
        let logger = log.logger
        let keepers = Keepers(surviving, logger: logger)
        let isSuccessor = PassedDescriptors.isSuccessor
        let extras = Extras(isSuccessor: isSuccessor, logger: logger)
        let configuration =
            try extras.open("its configuration") { try config.map(ConfigurationFile.init(path:)) }
            ?? ConfigurationFile()
        let front = try FrontDoor(keptBy: keepers, logger: logger)
        let sessions = try SessionTable(limits: configuration.limits, keptBy: keepers, logger: logger)
        let cache = try extras.open("the cache") { try keeping.open(logger: logger) }
        let registry = MachineRegistry(
            front: front, sessions: sessions, cache: cache, limit: configuration.maxMachines, logger: logger)
        defer { front.close() }
        let signals = StopSignals.shared.stream
        sessions.takePauses()
        registry.addKept()
        KeptClient.endArrivals(keepers, logger)
        for client in KeptClient.takeAll(from: keepers) { sessions.resume(client, as: registry.settings(of:)) }
        // A successor has the machines that there were.
        for machine in isSuccessor ? [] : configuration.machines {
            do {
                try registry.add(machine)
            } catch {
                var code = ExitCode.uncreatable
                if case .failed(let failure) = error { code = failure.code }
                throw Failure(code, "machine '\(machine.name)': \(error.text)")
            }
        }
        for path in PassedDescriptors.unusedSockets {
            logger.error(
                "systemd has passed a socket at which no machine listens: who connects there waits until one is added",
                metadata: ["socket": "\(path)"])
        }
        let socket = try ControlSocket(control)
        // Also if the server ends by itself.
        defer { socket.remove() }
        try front.start()
        let mode = access.socketMode?.value
        let server = ControlServer(registry, at: socket, mode: mode, from: try access.peers, logger: logger) {
            logger.info("ready", metadata: ["control": "\(control)"])
            Systemd.notify("READY=1", logger: logger)
        }
        let failure = await server.run(until: signals)
        Systemd.notify("STOPPING=1", logger: logger)
        // From here on, the next server may listen at the path of the control socket.
        await server.stop()
        registry.close()
        front.close()
        let ending = EndingTime(loading: .seconds(drain))
        await sessions.close(within: .seconds(drain))
        front.forgetAll()
        keepers?.flush()
        await registry.flushRecords(within: ending.left)
        cache?.flush(within: ending.left)
        // Nothing keeps requests waiting any more but their clients.
        await server.end(within: EndingTime.rest)
        let failures = sessions.failures + front.failures
        keepers?.forgetFailure()
        if let failure { throw Failure(.system, "the control socket cannot be served: \(failure)") }
        if failures > 0 { throw ExitCode.failure }
    }
}
