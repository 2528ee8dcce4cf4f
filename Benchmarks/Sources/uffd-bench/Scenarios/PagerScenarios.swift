import CBenchBaseline
import Dispatch
import Foundation
import Synchronization
import UserfaultFD
import UserfaultPager

/// `pager/WORK`: what a fault costs while the pager does something else on another processor, and what many readers cost
/// each other.
enum PagerScenarios {
    static var all: [Scenario] {
        [
            Scenario("pager/populate", .fault, prepare: populate),
            Scenario("pager/dirty", .fault, prepare: dirty),
        ] + [2, 4].map(readers)
    }

    /// Two regions of a pager: one whose faults are measured, and one that the other work is about.
    private struct Ground {
        let memory: Memory
        private let other: Kept

        init(_ settings: Settings, otherBytes: Int) throws {
            memory = try Memory(.anonymous, pages: settings.count(2000, quick: 500))
            let mapping = try Mapping(anonymous: otherBytes)
            try mapping.advise(.noHugePage)
            other = Kept(mapping)
        }

        func serving(
            writeProtected: Bool = false, _ work: (Pager<MemorySource>, Region) throws -> Sample
        ) throws -> Sample {
            try memory.empty()
            try other.mapping.advise(.dontNeed)
            // Read-only, so that its pages take no memory.
            let zeros = try Mapping(anonymous: max(memory.bytes, other.mapping.count), protection: .read)
            let pager = try Processor.kept(on: nil) {
                let pager = try Pager(
                    UserfaultFD(features: writeProtected ? .writeProtect : []),
                    source: MemorySource(base: zeros.range.start),
                    configuration: PagerConfiguration(processors: Processor.all.first.map { [$0] } ?? []))
                try pager.add(memory.view.range, options: RegionOptions(readAhead: .none))
                try pager.start()
                return pager
            }
            let region = try pager.add(
                other.mapping.range, options: RegionOptions(readAhead: .none, writeProtected: writeProtected))
            let sample = try work(pager, region)
            try pager.stop(.leaveZeros)
            return sample
        }

        /// How long each touch took, of so many pages.
        func touch(_ pages: Range<Int>) -> [UInt32] {
            var latencies = [UInt32](repeating: 0, count: pages.count)
            cbb_touch(
                memory.base + UInt64(pages.lowerBound * memory.pageSize), pages.count, memory.pageSize, nil, 1,
                &latencies)
            return latencies
        }

        func touch() -> [UInt32] { touch(0..<memory.pages) }
    }

    /// What a thread does beside the one that measures.
    private final class Companion: @unchecked Sendable {
        let isStopping = Atomic<Bool>(false)
        let isDone = Atomic<Bool>(false)
        private let failure = Mutex<String?>(nil)
        private let ended = DispatchSemaphore(value: 0)

        /// Does work over and over until it is stopped or the work says that all is done.
        ///
        /// - Parameter work: Says whether there is more to do.
        init(_ work: @escaping @Sendable () throws -> Bool) {
            let begun = DispatchSemaphore(value: 0)
            Thread.detachNewThread { [self] in
                // Apart from the thread that measures; threads that the work starts stay here too.
                Processor.pin(Processor.all.last)
                begun.signal()
                do {
                    while !isStopping.load(ordering: .relaxed), try work() {}
                } catch {
                    failure.withLock { $0 = "\(error)" }
                }
                isDone.store(true, ordering: .sequentiallyConsistent)
                ended.signal()
            }
            begun.wait()
        }

        func stop() throws {
            isStopping.store(true, ordering: .relaxed)
            ended.wait()
            if let failure = failure.withLock(\.self) { throw Mismeasured(description: failure) }
        }
    }

    private static func median(_ latencies: [UInt32]) -> Sample {
        let middle = UInt64(latencies.sorted()[latencies.count / 2])
        return Sample(middle * UInt64(latencies.count), units: latencies.count, latencies: latencies)
    }

    // MARK: Populate

    /// The median of a fault while a region is populated.
    private static func populate(_ settings: Settings) throws -> [Variant] {
        let ground = try Ground(settings, otherBytes: settings.count(1 << 30, quick: 256 << 20))
        return [
            Variant("alone") { try ground.serving { _, _ in median(ground.touch()) } },
            Variant("populating", .time(of: "alone", atMost: 1.5, gated: false)) {
                try ground.serving { pager, region in
                    let companion = Companion { try !isPopulated(region, of: pager) }
                    var latencies: [UInt32] = []
                    let step = 50
                    for start in stride(from: 0, to: ground.memory.pages, by: step) {
                        let found = ground.touch(start..<start + step)
                        // The last pages may have been touched when all was populated.
                        if companion.isDone.load(ordering: .sequentiallyConsistent) { break }
                        latencies += found
                    }
                    try companion.stop()
                    guard !latencies.isEmpty else {
                        throw Mismeasured(description: "all was populated before the first faults")
                    }
                    return median(latencies)
                }
            },
        ]
    }

    /// Goes on with populating for a while.
    private static func isPopulated(_ region: Region, of pager: Pager<MemorySource>) throws -> Bool {
        do {
            try pager.populate(region, within: .milliseconds(100))
            return true
        } catch PagerError.timedOut {
            return false
        }
    }

    // MARK: Written pages

    /// The longest fault while the written pages of a region are taken, against five milliseconds.
    private static func dirty(_ settings: Settings) throws -> [Variant] {
        guard try UserfaultFD().supportedFeatures.contains(.writeProtect) else {
            throw Unavailable(reason: "the kernel has no write protection")
        }
        let ground = try Ground(settings, otherBytes: settings.count(512 << 20, quick: 128 << 20))
        return [
            Variant("5 ms") { Sample(5_000_000, units: 1) },
            Variant("longest fault", .time(of: "5 ms", atMost: 1, gated: false)) {
                try ground.serving(writeProtected: true) { pager, region in
                    try pager.populate(region)
                    let companion = Companion {
                        _ = try pager.takeWritten(of: region)
                        return true
                    }
                    let latencies = ground.touch()
                    try companion.stop()
                    return Sample(UInt64(latencies.max() ?? 0), units: 1, latencies: latencies)
                }
            }.once,
        ]
    }

    // MARK: Readers

    /// Readers of one region, each in order through its own part, against one that reads as much.
    private static func readers(_ count: Int) -> Scenario {
        Scenario("pager/readers/\(count)", .page) { settings in
            let memory = try Memory(.anonymous, pages: settings.count(32_768, quick: 8192))
            let request = HandlerRequest(
                waiting: .poll, call: .copy, range: memory.view.range, source: memory.source.range.start,
                processor: Processor.all.first)
            func read(by team: Team) throws -> Sample {
                try memory.empty()
                return try PagerRun.serving(request, .init(readAhead: RegionOptions().readAhead)) {
                    Sample(team.touch(memory), units: memory.pages)
                }
            }
            let one = Team([Processor.inTurn(0)])
            let several = Team((0..<count).map(Processor.inTurn))
            return [
                Variant("1 reader") { try read(by: one) },
                Variant("\(count) readers", .time(of: "1 reader", atMost: 1.5, gated: false)) { try read(by: several) },
            ]
        }
    }
}
