import ArgumentParser
import UserfaultHandoff

/// One socket, and the memory of all who connect to it.
struct SocketOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Listen at this path.", valueName: "path"), completion: .file())
    var socket: String

    @Option(
        help: ArgumentHelp(
            """
            Where the memory comes from: a file, a block device, or the URI of an NBD export, whose content is to stay as it \
            is: nbd://HOST[:PORT]/EXPORT, nbds:// with TLS, nbd+unix:///EXPORT?socket=PATH, nbds+unix:// with TLS.
            """, valueName: "source"),
        completion: .file())
    var memory: String

    @OptionGroup var machine: MachineOptions
    @OptionGroup var survival: SurvivalOptions
    @OptionGroup var log: LogOptions

    @Flag(help: "End with the first client.")
    var once = false

    func validate() throws {
        try MemorySource.check(memory)
        try machine.tls.check(for: memory)
        if machine.keeping.isWanted { try MemorySource.checkCache(for: memory) }
        if let revision = machine.cacheRevision, let complaint = CacheOptions.complaint(about: revision, of: memory) {
            throw ValidationError("--cache-revision: \(complaint)")
        }
    }

    /// Serves until a signal comes.
    ///
    /// - Throws: As ``SocketService/run()``.
    func serve(_ format: HandoffFormat) async throws {
        let logger = log.logger
        let keepers = Keepers(survival, logger: logger)
        let settings: MachineSettings
        do {
            settings = try machine.settings(name: format.rawValue, memory: memory, logger: logger)
        } catch {
            // Clients of a server that has died cannot be served any more.
            KeptClient.killAll(keepers, logger, because: error)
            throw error
        }
        try await SocketService(
            socket: socket, format: format, settings: settings, options: machine, endsWithFirst: once, keepers: keepers,
            logger: logger
        ).run()
    }
}
