#if NBD
/// Bytes of the export that follow each other and are all of one kind.
struct BlockRun: Hashable {
    var range: Range<Int>
    /// Whether the server says that they read as zeros.
    var isZero: Bool
}

/// Where the export has holes, as far as the server was asked: window by window.
///
/// Four bytes for each run, and not more than a limit: then windows are forgotten, the oldest first, and asked for again.
struct BlockMap {
    static var windowBytes: Int { 128 << 20 }

    /// The runs of a window: where each ends, with the highest bit for zeros.
    private var windows: [Int: [UInt32]] = [:]
    private var ages: [Int] = []
    private var count = 0
    private let limit: Int
    let byteCount: Int

    private static var zeroBit: UInt32 { 1 << 31 }

    init(byteCount: Int, limit: Int = 1 << 20) {
        self.byteCount = byteCount
        self.limit = limit
    }

    /// The window in which a byte is.
    func window(of offset: Int) -> Int { offset / Self.windowBytes }

    /// The bytes of a window.
    func range(ofWindow number: Int) -> Range<Int> {
        let start = number * Self.windowBytes
        return start..<max(start, min(start + Self.windowBytes, byteCount))
    }

    /// The first window of a range that is not known.
    func unknownWindow(in range: Range<Int>) -> Int? {
        guard !range.isEmpty else { return nil }
        return (range.lowerBound / Self.windowBytes...(range.upperBound - 1) / Self.windowBytes).first {
            windows[$0] == nil
        }
    }

    /// Remembers what the server said of a window: runs in order, without gaps, from its start to its end.
    mutating func learn(window number: Int, _ runs: [BlockRun]) {
        forget(window: number)
        let start = number * Self.windowBytes
        windows[number] = runs.map { UInt32($0.range.upperBound - start) | ($0.isZero ? Self.zeroBit : 0) }
        ages.append(number)
        count += runs.count
        while count > limit, ages.count > 1, let oldest = ages.first { forget(window: oldest) }
    }

    private mutating func forget(window number: Int) {
        guard let runs = windows.removeValue(forKey: number) else { return }
        count -= runs.count
        ages.removeAll { $0 == number }
    }

    /// Forgets everything.
    mutating func removeAll() { self = BlockMap(byteCount: byteCount, limit: limit) }

    /// The runs of a range, whose windows are known; neighbours of one kind are one run.
    func runs(in range: Range<Int>) -> [BlockRun] {
        var found: [BlockRun] = []
        _ = allSatisfy(in: range) { run in
            Self.append(run, to: &found)
            return true
        }
        return found
    }

    /// What is in a range.
    enum Content: Hashable {
        /// This window of it, the first of such, is not known.
        case unknown(window: Int)
        case zeros
        case data
        /// Both.
        case mixed
    }

    /// What is in a range that is not empty.
    func content(of range: Range<Int>) -> Content {
        let window = window(of: range.lowerBound)
        // Pages lie in one run of one window nearly always.
        if range.upperBound <= (window + 1) * Self.windowBytes {
            guard let ends = windows[window] else { return .unknown(window: window) }
            let start = window * Self.windowBytes
            let index = Self.firstIndex(in: ends, endingAfter: UInt32(range.lowerBound - start))
            if index < ends.count, range.upperBound - start <= Int(ends[index] & ~Self.zeroBit) {
                return ends[index] & Self.zeroBit != 0 ? .zeros : .data
            }
        } else if let window = unknownWindow(in: range) {
            return .unknown(window: window)
        }
        var isZero: Bool?
        let isOfOneKind = allSatisfy(in: range) { run in
            if isZero == nil { isZero = run.isZero }
            return run.isZero == isZero
        }
        return isOfOneKind ? isZero == true ? .zeros : .data : .mixed
    }

    private func allSatisfy(in range: Range<Int>, _ condition: (BlockRun) -> Bool) -> Bool {
        var at = range.lowerBound
        while at < range.upperBound {
            let number = at / Self.windowBytes
            let start = number * Self.windowBytes
            let ends = windows[number] ?? [UInt32(Self.windowBytes)]
            var index = Self.firstIndex(in: ends, endingAfter: UInt32(at - start))
            let last = min(range.upperBound, start + Self.windowBytes)
            while at < last {
                // What the server said nothing of is data.
                let word = index < ends.count ? ends[index] : UInt32(Self.windowBytes)
                let end = min(last, start + Int(word & ~Self.zeroBit))
                guard condition(BlockRun(range: at..<end, isZero: word & Self.zeroBit != 0)) else { return false }
                at = end
                index += 1
            }
        }
        return true
    }

    static func append(_ run: BlockRun, to runs: inout [BlockRun]) {
        guard !run.range.isEmpty else { return }
        if let last = runs.last, last.isZero == run.isZero, last.range.upperBound == run.range.lowerBound {
            runs[runs.count - 1].range = last.range.lowerBound..<run.range.upperBound
        } else {
            runs.append(run)
        }
    }

    private static func firstIndex(in ends: [UInt32], endingAfter offset: UInt32) -> Int {
        var low = 0
        var high = ends.count
        while low < high {
            let middle = (low + high) / 2
            if ends[middle] & ~zeroBit > offset { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

extension [BlockRun] {
    /// The parts to be read for a range that has these runs: multiples of the minimum, none longer than the maximum.
    ///
    /// - Parameter gap: Holes that are shorter are read.
    func parts(minimum: Int, maximum: Int, gap: Int = 1) -> [Range<Int>] {
        var parts: [Range<Int>] = []
        for run in self where !run.isZero {
            let lower = run.range.lowerBound / minimum * minimum
            let upper = (run.range.upperBound + minimum - 1) / minimum * minimum
            if let last = parts.last, lower - last.upperBound < gap {
                parts[parts.count - 1] = last.lowerBound..<Swift.max(last.upperBound, upper)
            } else {
                parts.append(lower..<upper)
            }
        }
        return parts.flatMap { part in
            stride(from: part.lowerBound, to: part.upperBound, by: maximum).map {
                $0..<Swift.min($0 + maximum, part.upperBound)
            }
        }
    }
}
#endif
