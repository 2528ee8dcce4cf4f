import ArgumentParser
import Glibc
import Synchronization
import SystemPackage
import UserfaultHandoff
import UserfaultPager

struct CRIULazyPagesCommand: GuardedCommand {
    static let configuration = CommandConfiguration(
        commandName: "criu-lazy-pages",
        abstract:
            "Serve the memory of tasks that \"criu restore --lazy-pages\" restores, in place of \"criu lazy-pages\".",
        discussion: """
            Start this first, then "criu restore --lazy-pages" with the same folders. It loads what tasks touch, then the \
            rest, prints a line, and ends. A page that cannot be loaded is never shown as zeros.

            Exit codes: 0 all pages of all tasks are there, or the tasks have ended; 1 anything else; 64 wrong usage; 70 \
            this program died and its tasks were killed.
            """
    )

    @Option(
        name: [.customShort("D"), .long],
        help: ArgumentHelp("The folder with the images.", valueName: "folder"), completion: .directory)
    var imagesDir: String

    @Option(
        name: [.customShort("W"), .long],
        help: ArgumentHelp("The folder for the socket; by default that with the images.", valueName: "folder"),
        completion: .directory)
    var workDir: String?

    @Option(
        help: ArgumentHelp(
            """
            Where "criu dump --lazy-pages" serves pages that are not in the images: ADDRESS:PORT, [ADDRESS]:PORT for IPv6, \
            or the path of a Unix socket.
            """, valueName: "server"))
    var pageServer: String?

    @Flag(help: "The page server is of a CRIU after version 4.2, which counts pages in 64 bits.")
    var widePageCounts = false

    @Option(help: "What happens to a page that cannot be loaded: a signal for who touches it, or the end of the task.")
    var onFailure: OnFailure = .poison

    @Option(
        help: ArgumentHelp(
            "Try a page that cannot be loaded again so often: after 1 ms, and each time after twice as long.",
            valueName: "n"))
    var retries = Retries.ofFiles

    @Option(help: ArgumentHelp("Write a zero byte to this descriptor when tasks may be restored.", valueName: "number"))
    var statusFd: Int32?

    @OptionGroup var log: LogOptions

    func validate() throws {
        if let pageServer, CRIUPageServer(pageServer) == nil {
            throw ValidationError("--page-server needs ADDRESS:PORT or a path with a slash, not '\(pageServer)'")
        }
        try Retries.check(retries)
        if widePageCounts && pageServer == nil { throw ValidationError("--wide-page-counts needs --page-server") }
    }

    private static let statusVariable = "UFFD_PAGER_STATUS"

    /// Whoever reads from it waits for its last holder: that is the process that serves.
    var passedOn: [(variable: String, number: Int32)] {
        guard let statusFd, fcntl(statusFd, F_GETFD) >= 0 else { return [] }
        return [(Self.statusVariable, statusFd)]
    }

    func run() async throws {
        let guarded = GuardedTasks(Keepers(logger: log.logger))
        // Whoever still has no page that is there is poisoned or killed by then.
        defer { guarded.forget() }
        var configuration = CRIULazyPages.Configuration(images: imagesDir)
        configuration.workFolder = workDir
        configuration.pageServer = pageServer.flatMap { CRIUPageServer($0, wideMessages: widePageCounts) }
        configuration.failure = onFailure.policy(retries: retries)
        configuration.keep = { task, uffd, process in try guarded.keep(task, uffd, process) }
        do {
            let service = try CRIULazyPages(configuration)
            let signals = StopSignals.shared.stream
            let watcher = Task {
                for await _ in signals { return service.stop() }
            }
            defer { watcher.cancel() }
            try tellReady()
            let summary = try await Self.run(service).get()
            if !log.quiet { Standard.complain("\(summary)") }
        } catch let error as CRIULazyPagesError {
            throw Failure(.failure, "\(error)")
        }
    }

    private static func run(_ service: CRIULazyPages) async -> Result<CRIUSummary, CRIULazyPagesError> {
        await onOwnThread { Result { () throws(CRIULazyPagesError) in try service.run() } }
    }

    private func tellReady() throws {
        guard let statusFd else { return }
        let number = getenv(Self.statusVariable).flatMap { Int32(String(cString: $0)) } ?? -1
        var zero: UInt8 = 0
        guard write(number, &zero, 1) == 1 else {
            throw Failure(.failure, "descriptor \(statusFd) cannot be written: \(String(cString: strerror(errno)))")
        }
        close(number)
    }
}

/// The tasks that the guard keeps.
private final class GuardedTasks: Sendable {
    private let keepers: Keepers?
    private let tasks = Mutex<[Int]>([])

    init(_ keepers: Keepers?) {
        self.keepers = keepers
    }

    func keep(_ task: Int32, _ uffd: FileDescriptor, _ process: FileDescriptor) throws {
        try keepers?.keepClient(Int(task), uffd: uffd.rawValue, process: process.rawValue)
        tasks.withLock { $0.append(Int(task)) }
    }

    func forget() {
        for task in tasks.withLock({ $0 }) { keepers?.forget(KeptName.client(task)) }
    }
}
