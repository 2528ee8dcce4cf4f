import ArgumentParser
import Glibc
import Synchronization
import UserfaultPager

struct ChecksumsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "checksums",
        abstract: "Write the checksums of a memory's pages, for --checksums.",
        discussion: """
            Take them where the memory is made: they find what is damaged later, on its way or at its server. They do not \
            find what somebody has changed on purpose. If an NBD server exports a file, take those of the file: they do not find \
            what was damaged between the server and this program.

            The file has four bytes for each page of the host's page size: its CRC-32C, little-endian, in the order of the \
            pages. Zeros complete the last page. A run that is interrupted leaves the file as it was before.

            Exit codes: 0 done; 64 wrong usage; 66 the memory cannot be read; 69 the memory is at an NBD server, and this \
            program was built without NBD; 73 the file cannot be written.
            """)

    @Argument(
        help: ArgumentHelp(
            "The memory: a file, a block device, or the URI of an NBD export, as for the --memory of other commands.",
            valueName: "memory"),
        completion: .file())
    var memory: String

    @Option(help: ArgumentHelp("Write to this file.", valueName: "file"), completion: .file())
    var output: String

    @OptionGroup var tls: TLSOptions
    @OptionGroup var log: LogOptions

    func run() throws {
        let source = try MemorySource(memory, tls: tls, keeping: MemorySource.Keeping(), logger: log.logger)
        // Known before hours of reading.
        try holdingSignals { try WholeFile.checkPlace(output) }
        let checksums = try source.checksums(of: memory)
        do {
            try holdingSignals { try WholeFile.write(checksums.bytes, to: output) }
        } catch {
            throw Failure(.uncreatable, "\(output) cannot be written: \(error)")
        }
    }

    /// Signals that end the program wait, whichever thread takes them: they would leave a part of a file.
    private func holdingSignals(_ body: () throws -> Void) rethrows {
        heldSignal.store(0, ordering: .relaxed)
        let before = [SIGINT, SIGTERM, SIGHUP].map { number in
            (number, signal(number) { heldSignal.store($0, ordering: .relaxed) })
        }
        defer {
            for (number, handler) in before { signal(number, handler) }
            let held = heldSignal.load(ordering: .relaxed)
            if held > 0 { raise(held) }
        }
        try body()
    }
}

private let heldSignal = Atomic<Int32>(0)
