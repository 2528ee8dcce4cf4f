/// Something that is measured in several variants, which do the same work and differ in the code that does it.
struct Scenario {
    let name: String
    /// What one measured value is about: its time in nanoseconds for one of these.
    let unit: Unit
    /// Prepares memory and threads; the variants hold on to what they need.
    let prepare: (Settings) throws -> [Variant]

    init(_ name: String, _ unit: Unit, prepare: @escaping (Settings) throws -> [Variant]) {
        self.name = name
        self.unit = unit
        self.prepare = prepare
    }

    enum Unit: String, Codable {
        case page, fault, start
        case hugePage = "2 MiB"
        /// Bytes that were read; reported as GiB per second too.
        case kibibyte
    }
}

/// One way of doing a scenario's work.
struct Variant {
    let name: String
    /// What it is compared with, and what is promised of it.
    let comparisons: [Comparison]
    /// Does the work once; repeated until enough time was measured, unless it is ``once``.
    let run: () throws -> Sample
    /// Whether one run is a whole sample: the longest of something, which takes much longer to bring about.
    private(set) var isOnce = false

    /// A twin: it takes turns with the others.
    init(_ name: String, _ comparisons: Comparison..., run: @escaping () throws -> Sample) {
        self.init(name: name, comparisons: comparisons, run: run)
    }

    /// A line to compare with that does other work; measured after the twins, which it would disturb.
    init(reference name: String, run: @escaping () throws -> Sample) {
        self.init(name: "(\(name))", comparisons: [], run: run)
    }

    init(name: String, comparisons: [Comparison], run: @escaping () throws -> Sample) {
        self.name = name
        self.comparisons = comparisons
        self.run = run
    }

    var isReference: Bool { name.hasPrefix("(") }

    /// The same, with one run for each sample.
    var once: Variant {
        var variant = self
        variant.isOnce = true
        return variant
    }
}

/// A variant against another one of its scenario.
struct Comparison {
    enum Quantity: String, Codable {
        /// The time for one unit: the less, the better.
        case time
        /// Units per second: the more, the better.
        case rate
    }

    let twin: String
    let quantity: Quantity
    /// What is promised: the largest ratio of times, the smallest of rates.
    let bound: Double?
    /// Whether a broken promise fails the run.
    let isGated: Bool

    static func time(of twin: String = "c", atMost bound: Double? = nil, gated: Bool = true) -> Comparison {
        Comparison(twin: twin, quantity: .time, bound: bound, isGated: gated && bound != nil)
    }

    static func rate(of twin: String, atLeast bound: Double? = nil, gated: Bool = true) -> Comparison {
        Comparison(twin: twin, quantity: .rate, bound: bound, isGated: gated && bound != nil)
    }
}

/// What one run of a variant gave, or several together.
struct Sample {
    private(set) var nanoseconds: UInt64
    private(set) var units: Int
    /// How long each fault took, in nanoseconds, where that was measured.
    private(set) var latencies: [UInt32] = []
    /// How much more memory the process had at the end, in bytes, where that was measured.
    private(set) var residentBytes: Int?

    init(_ nanoseconds: UInt64, units: Int, latencies: [UInt32] = [], residentBytes: Int? = nil) {
        self.nanoseconds = nanoseconds
        self.units = units
        self.latencies = latencies
        self.residentBytes = residentBytes
    }

    mutating func add(_ other: Sample) {
        nanoseconds += other.nanoseconds
        units += other.units
        latencies += other.latencies
        if let bytes = other.residentBytes { residentBytes = max(residentBytes ?? bytes, bytes) }
    }

    /// Nanoseconds for one unit.
    var value: Double { Double(nanoseconds) / Double(units) }
}

/// How much to measure.
struct Settings {
    let pace: Pace
    let isQuick: Bool

    /// A number of things to do in one run.
    func count(_ full: Int, quick: Int) -> Int { isQuick ? quick : full }

    /// What has to be measured for one value, in nanoseconds: less than that, and one interruption decides.
    var sampleTime: UInt64 { isQuick ? 5_000_000 : 20_000_000 }
}

/// How many rounds a scenario gets: what is short is measured often, which narrows its interval.
struct Pace {
    /// Always: with fewer than 6 there is no interval of 95 %.
    let least: Int
    /// Unless they take longer than 20 seconds.
    let usual: Int
    let most: Int
    /// For rounds beyond the usual, in nanoseconds.
    let budget: UInt64

    static let quick = Pace(least: 6, usual: 8, most: 40, budget: 800_000_000)
    static let full = Pace(least: 6, usual: 10, most: 60, budget: 4_000_000_000)

    static func exactly(_ rounds: Int) -> Pace { Pace(least: rounds, usual: rounds, most: rounds, budget: 0) }

    /// Whether one more round begins.
    func allows(round: Int, after nanoseconds: UInt64) -> Bool {
        round < least || round < usual && nanoseconds < 20_000_000_000 || round < most && nanoseconds < budget
    }
}

/// A scenario that cannot be measured here for a lawful reason: what the machine or the kernel lacks.
struct Unavailable: Error {
    let reason: String
}

/// A measurement that went wrong.
struct Mismeasured: Error, CustomStringConvertible {
    let description: String
}
