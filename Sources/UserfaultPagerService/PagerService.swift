#if Service
public import Logging
public import ServiceLifecycle
public import UserfaultFD
public import UserfaultPager

/// A pager that is run by a `ServiceGroup` of
/// [swift-service-lifecycle](https://github.com/swift-server/swift-service-lifecycle), and logs what it has to report.
///
/// ```swift
/// let service = try PagerService(UserfaultFD(), source: FileSource(adopting: descriptor), logger: logger)
/// try service.pager.add(memory.range)
/// try await ServiceGroup(services: [service], gracefulShutdownSignals: [.sigterm], logger: logger).run()
/// ```
///
/// The pager's threads are its own: no page fault is served by a task. Memory that it serves must not be touched by tasks
/// whose cooperative threads the source needs.
public struct PagerService<Source: PageSource & ~Copyable>: Service {
    /// The pager: add memory to it before or while the service runs.
    public let pager: Pager<Source>

    private let ending: Ending
    private let logger: Logger
    private let ownerGone: AsyncStream<Void>

    /// A service whose pager is to be started by ``run()``.
    ///
    /// - Parameters:
    ///   - uffd: The userfaultfd: this process' own, or one that another process sent.
    ///   - source: Where pages come from.
    ///   - owner: The process whose memory it is.
    ///   - configuration: How to work. Its `report` is called after what it is given was logged.
    ///   - ending: What happens at the end to pages that were not loaded.
    ///   - logger: Gets the reports, on a thread of the pager that serves no faults.
    /// - Throws: As the pager's initializer.
    public init(
        _ uffd: consuming UserfaultFD, source: consuming Source, owner: Owner = .currentProcess,
        configuration: PagerConfiguration = PagerConfiguration(), ending: Ending = .poison, logger: Logger
    ) throws(PagerError) {
        let (ownerGone, continuation) = AsyncStream<Void>.makeStream()
        var configuration = configuration
        let report = configuration.report
        configuration.report = {
            logger.log($0)
            report?($0)
            if case .ownerGone = $0 { continuation.finish() }
        }
        pager = try Pager(uffd, source: source, owner: owner, configuration: configuration)
        self.ending = ending
        self.logger = logger
        self.ownerGone = ownerGone
    }

    /// Starts the pager, and stops it when the service is to shut down, its task is cancelled, or the process has ended
    /// whose memory it is.
    ///
    /// Once.
    ///
    /// - Throws: `PagerError`.
    public func run() async throws {
        try pager.start()
        logger.debug("the pager serves")
        for await _ in ownerGone.cancelOnGracefulShutdown() {}
        logger.debug("the pager stops")
        try await pager.stop(ending)
        let statistics = pager.statistics
        logger.info(
            "the pager has stopped",
            metadata: [
                "faults": "\(statistics.faults)", "bytes": "\(statistics.bytesFilled)",
                "failures": "\(statistics.failures)", "median_ns": "\(statistics.service.percentile(50))",
                "p99_ns": "\(statistics.service.percentile(99))",
            ])
    }
}
#else
/// Needs the trait `Service` of this package.
@available(*, unavailable, message: "enable the trait Service of swift-userfaultfd in your package's manifest")
public struct PagerService<Source> {}
#endif
