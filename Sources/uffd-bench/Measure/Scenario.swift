/// Something that is measured in several variants, which do the same work and differ in the code that does it.
struct Scenario {
    let name: String
    /// What one measured value is about: its time in nanoseconds for one of these.
    let unit: Unit
    /// The largest lawful ratio of a variant's median to the C twin's, where there is a promise.
    let gates: [String: Double]
    /// Prepares memory and threads; the variants hold on to what they need.
    let prepare: (Settings) throws -> [Variant]

    init(
        _ name: String, _ unit: Unit, gates: [String: Double] = [:], prepare: @escaping (Settings) throws -> [Variant]
    ) {
        self.name = name
        self.unit = unit
        self.gates = gates
        self.prepare = prepare
    }

    enum Unit: String, Codable {
        case page, fault, start
        /// Bytes that were read; reported as GiB per second too.
        case kibibyte
    }
}

/// One way of doing a scenario's work.
struct Variant {
    /// `c` is what the others are compared with; a name in brackets is a reference line and no twin.
    let name: String
    let run: () throws -> Sample

    init(_ name: String, run: @escaping () throws -> Sample) {
        self.name = name
        self.run = run
    }
}

/// What one run of a variant gave.
struct Sample {
    /// Nanoseconds for one unit.
    let nanoseconds: Double
    /// How long each fault took, in nanoseconds, where that was measured.
    var latencies: [UInt32] = []
}

/// How much to measure.
struct Settings {
    let pace: Pace
    let isQuick: Bool

    /// A number of things to do in one run.
    func count(_ full: Int, quick: Int) -> Int { isQuick ? quick : full }
}

/// How many rounds a scenario gets: what is short is measured often, which narrows its interval.
struct Pace {
    /// Always.
    let least: Int
    /// Unless they take longer than a minute.
    let usual: Int
    let most: Int
    /// For rounds beyond the usual, in nanoseconds.
    let budget: UInt64

    static let quick = Pace(least: 5, usual: 5, most: 41, budget: 800_000_000)
    static let full = Pace(least: 5, usual: 15, most: 101, budget: 5_000_000_000)

    static func exactly(_ rounds: Int) -> Pace { Pace(least: rounds, usual: rounds, most: rounds, budget: 0) }

    /// Whether a round begins: -1 is the one that is not counted.
    func allows(round: Int, after nanoseconds: UInt64) -> Bool {
        round < least || round < usual && nanoseconds < 60_000_000_000 || round < most && nanoseconds < budget
    }
}

/// A scenario that cannot be measured here, with the reason.
struct Unavailable: Error {
    let reason: String
}
