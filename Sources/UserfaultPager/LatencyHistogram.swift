/// How long something took, how often: percentiles are right to an eighth of their value.
public struct LatencyHistogram: Hashable, Sendable {
    var buckets = [UInt64](repeating: 0, count: 320)

    /// The longest, in nanoseconds.
    public internal(set) var maximum: UInt64 = 0

    /// Nothing recorded yet.
    public init() {}

    /// How many were recorded.
    public var count: UInt64 { buckets.reduce(0, +) }

    /// The time within which a share of all were done, in nanoseconds; 0 where nothing was recorded.
    ///
    /// - Parameter percent: 0 to 100: 50 for the median, 99.9 for the slowest in a thousand. What is
    ///   below counts as 0, as `nan` does, and what is above as 100.
    public func percentile(_ percent: Double) -> UInt64 {
        let total = count
        guard total > 0 else { return 0 }
        let share = percent > 0 ? min(percent, 100) / 100 : 0
        let wanted = max(1, UInt64((Double(total) * share).rounded(.up)))
        var seen: UInt64 = 0
        for (index, bucket) in buckets.enumerated() {
            seen += bucket
            if seen >= wanted { return min(maximum, Self.upperBound(of: index)) }
        }
        return maximum
    }

    /// What was recorded since an earlier snapshot of the same histogram.
    public func subtracting(_ earlier: LatencyHistogram) -> LatencyHistogram {
        var rest = LatencyHistogram()
        for index in buckets.indices where buckets[index] > earlier.buckets[index] {
            rest.buckets[index] = buckets[index] - earlier.buckets[index]
            rest.maximum = min(maximum, Self.upperBound(of: index))
        }
        return rest
    }

    /// The bucket of a value: exact below 8, then 8 buckets for each power of two.
    @inline(__always)
    static func bucket(of nanoseconds: UInt64) -> Int {
        guard nanoseconds >= 8 else { return Int(nanoseconds) }
        let exponent = 63 - nanoseconds.leadingZeroBitCount
        return min(319, (exponent - 2) * 8 + Int((nanoseconds >> UInt64(exponent - 3)) & 7))
    }

    /// The largest value of a bucket.
    static func upperBound(of bucket: Int) -> UInt64 {
        guard bucket >= 8 else { return UInt64(bucket) }
        let exponent = bucket / 8 + 2
        return ((8 + UInt64(bucket % 8) + 1) << UInt64(exponent - 3)) - 1
    }
}
