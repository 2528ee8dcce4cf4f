import CBenchBaseline

/// Keeping threads on processors.
enum Processor {
    /// A bit for each processor that a thread may run on, as the kernel has it: 8192 of them.
    private typealias Mask = [UInt64]

    private static let allowed = mask()

    /// The processors that this process may run on.
    static let all = (0..<allowed.count * 64).filter { allowed[$0 / 64] >> UInt64($0 % 64) & 1 == 1 }

    /// The first, the second and so on, and the first again after the last.
    static func inTurn(_ index: Int) -> Int { all[index % all.count] }

    /// Keeps the calling thread on one processor, or lets it run on any.
    static func pin(_ processor: Int?) {
        var mask = allowed
        if let processor {
            mask = Mask(repeating: 0, count: allowed.count)
            mask[processor / 64] = 1 << UInt64(processor % 64)
        }
        keep(on: mask)
    }

    /// Keeps the calling thread, and the threads that it starts, on a processor while the body runs.
    static func kept<Result>(on processor: Int?, _ body: () throws -> Result) rethrows -> Result {
        let before = mask()
        defer { keep(on: before) }
        pin(processor)
        return try body()
    }

    private static func mask() -> Mask {
        var mask = Mask(repeating: 0, count: 128)
        cbb_get_affinity(&mask, mask.count)
        return mask
    }

    private static func keep(on mask: Mask) { cbb_set_affinity(mask, mask.count) }
}
