#if Metrics
public import CoreMetrics
internal import Synchronization
public import UserfaultPager

/// What a pager does, as metrics of [swift-metrics](https://github.com/apple/swift-metrics).
///
/// ```swift
/// let metrics = PagerMetrics(dimensions: [("image", "debian-12")])
/// try await metrics.follow(pager, every: .seconds(10))
/// ```
///
/// Names begin with a label, by default `userfaultfd_pager`:
///
/// | name | kind | dimensions |
/// |---|---|---|
/// | `…_faults` | counter | `kind`: `missing`, `minor`, `write_protect`, `stray` |
/// | `…_pages` | counter | `how`: `copied`, `zeroed`, `continued`, `moved`, `poisoned` |
/// | `…_pages_read_ahead`, `…_bytes`, `…_events` | counter | |
/// | `…_retries`, `…_failures`, `…_already_mapped`, `…_mapping_was_changing` | counter | |
/// | `…_outstanding`, `…_queued` | meter | |
/// | `…_latency_nanoseconds` | meter | `stage`: `load`, `fill`, `service`; `quantile`: `0.5`, `0.99`, `0.999`, `1` |
///
/// Latencies cover the time since the previous snapshot. They are meters, not timers, because the pager has histograms of
/// its own: a timer would need every one of millions of values again.
public final class PagerMetrics: Sendable {
    private let counters: [(counter: Counter, value: @Sendable (PagerStatistics) -> UInt64)]
    private let outstanding: Meter
    private let queued: Meter
    private let stages: [Stage]
    private let last = Mutex(PagerStatistics())

    private struct Stage {
        let histogram: @Sendable (PagerStatistics) -> LatencyHistogram
        let quantiles: [(percent: Double, meter: Meter)]
    }

    /// Creates the metrics.
    ///
    /// - Parameters:
    ///   - label: The beginning of all names.
    ///   - dimensions: Dimensions of all metrics, such as the pager's name.
    ///   - factory: Where the metrics go.
    public init(
        label: String = "userfaultfd_pager", dimensions: [(String, String)] = [],
        factory: any MetricsFactory = MetricsSystem.factory
    ) {
        func counter(
            _ name: String, _ further: (String, String)?, _ value: @escaping @Sendable (PagerStatistics) -> UInt64
        ) -> (Counter, @Sendable (PagerStatistics) -> UInt64) {
            let all = dimensions + (further.map { [$0] } ?? [])
            return (Counter(label: "\(label)_\(name)", dimensions: all, factory: factory), value)
        }
        counters = [
            counter("faults", ("kind", "missing")) { $0.missingFaults },
            counter("faults", ("kind", "minor")) { $0.minorFaults },
            counter("faults", ("kind", "write_protect")) { $0.writeProtectFaults },
            counter("faults", ("kind", "stray")) { $0.strayFaults },
            counter("pages", ("how", "copied")) { $0.pagesCopied },
            counter("pages", ("how", "zeroed")) { $0.pagesZeroed },
            counter("pages", ("how", "continued")) { $0.pagesContinued },
            counter("pages", ("how", "moved")) { $0.pagesMoved },
            counter("pages", ("how", "poisoned")) { $0.pagesPoisoned },
            counter("pages_read_ahead", nil) { $0.pagesReadAhead },
            counter("bytes", nil) { $0.bytesFilled },
            counter("events", nil) { $0.events },
            counter("retries", nil) { $0.retries },
            counter("failures", nil) { $0.failures },
            counter("already_mapped", nil) { $0.alreadyMapped },
            counter("mapping_was_changing", nil) { $0.mappingWasChanging },
        ]
        outstanding = Meter(label: "\(label)_outstanding", dimensions: dimensions, factory: factory)
        queued = Meter(label: "\(label)_queued", dimensions: dimensions, factory: factory)
        func stage(
            _ name: String, _ histogram: @escaping @Sendable (PagerStatistics) -> LatencyHistogram
        ) -> Stage {
            let quantiles = [("0.5", 50), ("0.99", 99), ("0.999", 99.9), ("1", 100)].map { quantile, percent in
                let all = dimensions + [("stage", name), ("quantile", quantile)]
                return (percent, Meter(label: "\(label)_latency_nanoseconds", dimensions: all, factory: factory))
            }
            return Stage(histogram: histogram, quantiles: quantiles)
        }
        stages = [stage("load") { $0.load }, stage("fill") { $0.fill }, stage("service") { $0.service }]
    }

    /// Records what happened since the previous snapshot.
    ///
    /// Pass the snapshots of one pager, in order.
    public func record(_ statistics: PagerStatistics) {
        last.withLock { last in
            for (counter, value) in counters where value(statistics) > value(last) {
                counter.increment(by: value(statistics) - value(last))
            }
            for stage in stages {
                let times = stage.histogram(statistics).subtracting(stage.histogram(last))
                for (percent, meter) in stage.quantiles { meter.set(times.percentile(percent)) }
            }
            last = statistics
        }
        outstanding.set(statistics.outstanding)
        queued.set(statistics.queued)
    }

    /// Records a pager's statistics at regular intervals until the task is cancelled, and then one last time.
    ///
    /// - Throws: `CancellationError`.
    public func follow<Source: PageSource & ~Copyable>(_ pager: Pager<Source>, every interval: Duration) async throws {
        defer { record(pager.statistics) }
        while true {
            record(pager.statistics)
            try await Task.sleep(for: interval)
        }
    }
}
#else
/// Needs the trait `Metrics` of this package.
@available(*, unavailable, message: "enable the trait Metrics of swift-userfaultfd in your package's manifest")
public final class PagerMetrics {}
#endif
