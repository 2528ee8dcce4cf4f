import ArgumentParser
import Logging

/// How machines are served, whatever their monitor.
struct MachineOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Load the pages first that an earlier run recorded in this file.", valueName: "file"),
        completion: .file())
    var prefetch: String?

    @Option(
        help: ArgumentHelp(
            "Write the pages that machines have touched to this file, whenever one ends.", valueName: "file"),
        completion: .file())
    var record: String?

    @Option(help: "What happens to a page that cannot be loaded: a signal for who touches it, or for the machine.")
    var onFailure: OnFailure = .poison

    @Option(
        help: ArgumentHelp(
            """
            Try a page that cannot be loaded again so often: after 1 ms, and each time after twice as long, at most a \
            minute. 14 bridge 16 seconds, 16 a minute, and each further one a minute more. (default: 3 for files, 14 for \
            NBD servers)
            """, valueName: "n"))
    var retries: Int?

    @Option(
        help: ArgumentHelp(
            "Compare the pages with the checksums in this file, which 'uffd-pager checksums' writes: one that differs fails.",
            valueName: "file"),
        completion: .file())
    var checksums: String?

    @Flag(help: "Load all memory in the background.")
    var populate = false

    @Option(help: ArgumentHelp("How long to load at the end what is left; the rest is poisoned.", valueName: "seconds"))
    var drain = 60

    @Option(help: ArgumentHelp("Serve at most this many machines.", valueName: "n"))
    var maxMachines = 1024

    @Option(help: ArgumentHelp("Serve at most this many memories of one process.", valueName: "n"))
    var maxPerProcess = SessionLimits.ofProcess

    @OptionGroup var keeping: CacheOptions

    @Option(
        help: ArgumentHelp(
            """
            Which version of the memory it is, for the cache: memory that has changed needs another name. At most 900 bytes \
            together with the URI.
            """, valueName: "name"))
    var cacheRevision: String?

    @OptionGroup var tls: TLSOptions
    @OptionGroup var access: AccessOptions

    func validate() throws {
        guard (0...86_400).contains(drain) else { throw ValidationError("--drain needs a number from 0 to 86400") }
        for (option, number) in [("--max-machines", maxMachines), ("--max-per-process", maxPerProcess)]
        where !SessionLimits.range.contains(number) {
            throw ValidationError("\(option) needs a number from 1 to 100000")
        }
        guard keeping.isWanted == (cacheRevision != nil) else {
            throw ValidationError(
                """
                --cache or --cache-memory goes together with --cache-revision, which says which version of the memory is \
                kept
                """)
        }
        guard cacheRevision != "" else { throw ValidationError("--cache-revision is empty: is a variable not set?") }
        try Retries.check(retries)
    }

    var limits: SessionLimits { SessionLimits(all: maxMachines, ofProcess: maxPerProcess) }

    func settings(name: String, memory: String, logger: Logger) throws -> MachineSettings {
        let extras = Extras(isSuccessor: PassedDescriptors.isSuccessor, logger: logger)
        let kept = try cacheRevision.flatMap { revision in
            try extras.open("the cache") { try keeping.open(logger: logger) }
                .map { MemoryCache(chunks: $0, revision: revision) }
        }
        return MachineSettings(
            name: name,
            memory: try MemorySource(
                memory, tls: tls,
                keeping: MemorySource.Keeping(
                    cache: kept, revision: cacheRevision, checksums: try checksums.map(ChecksumFile.init),
                    waits: extras.isSuccessor),
                logger: logger),
            prefetch: try extras.open("prefetching") { try prefetch.map(WorkingSetFile.read) },
            record: try extras.open("a record") { try record.map(WorkingSetRecord.init) }, onFailure: onFailure,
            populates: populate, retries: retries)
    }
}
