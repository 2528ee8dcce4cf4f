import CNBDBaseline
import Glibc
import UserfaultFD
import UserfaultNBD
import UserfaultPager

// What Scripts/bench/nbd.sh runs:
//   nbd-bench prefetch URI PAGES       touches recorded pages without and with prefetch
//   nbd-bench demand URI PAGES         touches other pages alone, and while recorded ones are replayed
//   nbd-bench connections URI PAGES    one request at a time, and eight connections
//   nbd-bench overhead URI PAGES       a C program, and the pager, which is told of unmapping
//   nbd-bench overhead-asking URI PAGES    the same, and it is not told

/// Runs a body and measures it, in seconds.
func seconds(_ body: () throws -> Void) rethrows -> Double {
    let duration = try ContinuousClock().measure { try body() }
    return Double(duration.components.seconds) + Double(duration.components.attoseconds) * 1e-18
}

/// Memory that a source serves.
struct Bench: ~Copyable {
    static let page = PageSize.base.bytes
    let mapping: Mapping
    let pager: Pager<AsynchronousSource<NBDSource>>
    let region: Region

    init(
        _ uri: String, bytes: Int, _ configuration: NBDConfiguration = NBDConfiguration(),
        features: UserfaultFD.Features = []
    ) throws {
        let mapping = try Mapping(anonymous: bytes, options: .noReserve)
        let pager = try Pager(
            UserfaultFD(features: features), source: AsynchronousSource(NBDSource(uri, configuration: configuration)))
        let region = try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        self.mapping = mapping
        self.pager = pager
        self.region = region
    }

    /// Touches pages in order, on the thread that calls.
    ///
    /// - Returns: How long each touch took that had to wait, in nanoseconds.
    func touch(_ offsets: [UInt64]) -> [UInt64] {
        var waits: [UInt64] = []
        waits.reserveCapacity(offsets.count)
        for offset in offsets {
            let start = clock_gettime_nsec()
            let word = UnsafePointer<UInt64>(bitPattern: mapping.range.start + UInt(offset))!.pointee
            let took = clock_gettime_nsec() - start
            precondition(UInt64(bigEndian: word) == offset, "a wrong page")
            // Shorter than any fault.
            if took > 5000 { waits.append(took) }
        }
        return waits.sorted()
    }

    /// Begins to load pages in the background, in order.
    func replay(_ offsets: [UInt64]) throws {
        try pager.replay(WorkingSet(offsets: offsets, pageBytes: UInt32(Self.page)))
    }

    /// Waits until a number of pages was filled.
    ///
    /// - Parameter atLeast: How long that takes at least, in seconds: nobody looks before, which would take time from those
    ///   who fill them.
    func waitForPages(_ count: Int, atLeast: Double = 0) {
        usleep(UInt32(atLeast * 1e6))
        while pager.statistics.pagesCopied < UInt64(count) { usleep(1000) }
    }
}

func clock_gettime_nsec() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

/// Pages of an export of so many times as many, in a random order that is the same every time.
func order(_ pages: Int, of parts: Int = 2) -> [UInt64] {
    struct Generator: RandomNumberGenerator {
        var state: UInt64 = 42
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 29
        }
    }
    var generator = Generator()
    return Array((0..<parts * pages).map { UInt64($0 * Bench.page) }.shuffled(using: &generator).prefix(pages))
}

func percentile(_ sorted: [UInt64], _ part: Double) -> Double {
    sorted.isEmpty ? 0 : Double(sorted[min(sorted.count - 1, Int(Double(sorted.count) * part))]) / 1000
}

/// Prints the median of the rounds' ratios, and between which two of them the true median lies, 95 times of 100 or more.
func printRatio(_ name: String, _ rounds: [Double]) {
    let sorted = rounds.sorted()
    let count = sorted.count
    // How many rounds are below the true median follows a binomial distribution.
    var ways = 1.0
    var below = ways
    var left = 0
    while true {
        ways *= Double(count - left) / Double(left + 1)
        below += ways
        guard 2 * below <= 0.05 * exp2(Double(count)) else { break }
        left += 1
    }
    let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2
    print("RATIO \(name) \(median) \(sorted[left]) \(sorted[count - 1 - left])")
}

/// How pages come before they are touched.
enum Ahead: String, CaseIterable {
    case none = "without prefetch"
    case sequential = "with populate"
    case recorded = "with replay"
}

/// Touches recorded pages, in their order, and measures the time to the last one.
func prefetch(_ uri: String, _ pages: Int) throws {
    let offsets = order(pages, of: 4)
    var times: [Ahead: Double] = [:]
    for ahead in Ahead.allCases {
        let bench = try Bench(uri, bytes: 4 * pages * Bench.page)
        var waits = 0
        times[ahead] = try seconds {
            switch ahead {
            case .none: break
            case .sequential: try bench.pager.prefetch(bench.region, count: 4 * pages * Bench.page)
            case .recorded: try bench.replay(offsets)
            }
            waits = bench.touch(offsets).count
        }
        try bench.pager.stop(.poison)
        print("\(ahead.rawValue): \(times[ahead]!) s to the last page, \(waits) touches waited")
    }
    printRatio("prefetch-time", [times[.none]! / times[.recorded]!])
    printRatio("prefetch-time-sequential", [times[.none]! / times[.sequential]!])
}

/// Touches pages that were not recorded, alone and while recorded ones are replayed.
func demand(_ uri: String, _ pages: Int) throws {
    let all = order(2 * pages)
    let (recorded, others) = (Array(all.prefix(pages)), Array(all.dropFirst(pages).prefix(3000)))
    var medians: [Double] = []
    var p99s: [Double] = []
    // In turns, so that what else the machine does meets both.
    for _ in 0..<7 {
        var waits: [[UInt64]] = []
        for isOn in [false, true] {
            let bench = try Bench(uri, bytes: 4 * pages * Bench.page)
            if isOn { try bench.replay(recorded) }
            var own: [UInt64] = []
            for start in stride(from: 0, to: others.count, by: 100) {
                own += bench.touch(Array(others[start..<min(start + 100, others.count)]))
                // What is touched after the last recorded page has come says nothing.
                if isOn, bench.pager.statistics.pagesCopied >= UInt64(recorded.count + start + 100) { break }
            }
            try bench.pager.stop(.poison)
            waits.append(own.sorted())
            print(
                isOn ? "while replaying:" : "alone:", "\(own.count) touches waited,",
                "median \(percentile(waits.last!, 0.5)) us, p99 \(percentile(waits.last!, 0.99)) us")
        }
        medians.append(percentile(waits[1], 0.5) / percentile(waits[0], 0.5))
        p99s.append(percentile(waits[1], 0.99) / percentile(waits[0], 0.99))
    }
    printRatio("demand-median", medians)
    printRatio("demand-p99", p99s)
}

func connections(_ uri: String, _ pages: Int) throws {
    let offsets = order(pages)
    func time(_ configuration: NBDConfiguration, _ offsets: [UInt64]) throws -> Double {
        let bench = try Bench(uri, bytes: 2 * pages * Bench.page, configuration)
        let time = try seconds {
            try bench.replay(offsets)
            bench.waitForPages(offsets.count)
        }
        try bench.pager.stop(.poison)
        return time / Double(offsets.count)
    }
    let one = try time(
        NBDConfiguration(connections: 1, requestsPerConnection: 1, coalescedBytes: 4096), Array(offsets.prefix(200)))
    let eight = try time(NBDConfiguration(connections: 8, coalescedBytes: 4096), offsets)
    print("one request at a time: \(one * 1e6) us a page; eight connections: \(eight * 1e6) us a page")
    printRatio("connections", [one / eight])
}

func overhead(_ uri: String, _ pages: Int, _ features: UserfaultFD.Features) throws {
    let offsets = order(pages)
    let bytes = 2 * pages * Bench.page
    var c = 0.0
    var fastest = Double.infinity
    func measureC() {
        c = Double(cnb_read_pages(uri, offsets, Int64(offsets.count), Int64(bytes), 64)) * 1e-9
        guard c > 0 else { fatalError("the C program failed: \(c)") }
        fastest = min(fastest, c)
    }
    func measurePager() throws -> Double {
        let bench = try Bench(
            uri, bytes: bytes, NBDConfiguration(connections: 1, requestsPerConnection: 128, coalescedBytes: 4096),
            features: features)
        let time = try seconds {
            try bench.replay(offsets)
            bench.waitForPages(offsets.count, atLeast: 0.9 * fastest)
        }
        try bench.pager.stop(.poison)
        return time
    }
    // The first one finds out how long it takes.
    measureC()
    var ratios: [Double] = []
    // In turns, so that what else the machine does meets both; and each is first in turn, because whoever runs for a second
    // before all others is made to let them run for a moment.
    for round in 0..<18 {
        if round % 2 == 0 { measureC() }
        let pager = try measurePager()
        if round % 2 == 1 { measureC() }
        print("C \(c * 1e6 / Double(pages)) us a page, pager \(pager * 1e6 / Double(pages)) us a page")
        ratios.append(pager / c)
    }
    printRatio(arguments[1], ratios)
}

let arguments = CommandLine.arguments
guard arguments.count == 4, let pages = Int(arguments[3]) else {
    print("usage: nbd-bench prefetch|demand|connections|overhead|overhead-asking URI PAGES")
    exit(64)
}
switch arguments[1] {
case "prefetch": try prefetch(arguments[2], pages)
case "demand": try demand(arguments[2], pages)
case "connections": try connections(arguments[2], pages)
case "overhead": try overhead(arguments[2], pages, .eventUnmap)
case "overhead-asking": try overhead(arguments[2], pages, [])
default: exit(64)
}
