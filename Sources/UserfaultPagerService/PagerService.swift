#if Service
public import Logging
public import ServiceLifecycle
public import UserfaultFD
public import UserfaultPager

/// A pager that runs in a `ServiceGroup` of
/// [swift-service-lifecycle](https://github.com/swift-server/swift-service-lifecycle), and logs its reports.
///
/// ```swift
/// let service = try PagerService(UserfaultFD(), source: FileSource(adopting: descriptor), logger: logger)
/// try service.pager.add(memory.range)
/// try await ServiceGroup(services: [service], gracefulShutdownSignals: [.sigterm], logger: logger).run()
/// ```
///
/// The pager uses threads of its own: no task serves a page fault. Tasks must not touch the memory if the source needs the
/// cooperative pool to return.
public struct PagerService<Source: PageSource & ~Copyable>: Service {
    /// The pager, to which memory can be added before and while the service runs.
    public let pager: Pager<Source>

    private let ending: Ending
    private let logger: Logger
    private let ownerGone: AsyncStream<Void>

    /// Creates a service; ``run()`` starts its pager.
    ///
    /// - Parameters:
    ///   - uffd: The userfaultfd of this process, or one that another process sent.
    ///   - source: Where pages come from.
    ///   - owner: The process that owns the memory.
    ///   - configuration: How the pager works. Its `report` is called after each report was logged.
    ///   - ending: What happens, when the service ends, to pages that were not loaded.
    ///   - logger: Receives the reports, on a thread of the pager that serves no faults.
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

    /// Starts the pager, and stops it when the service shuts down, its task is cancelled, or the process that owns the memory
    /// ends.
    ///
    /// Call it once.
    ///
    /// - Throws: `PagerError`.
    public func run() async throws {
        try pager.start()
        logger.debug("the pager has started")
        for await _ in ownerGone.cancelOnGracefulShutdown() {}
        logger.debug("the pager is stopping")
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
