/// Room for descriptors that are ready, allocated once, which ``PollSet/wait(into:timeout:)`` fills.
@safe
public struct ReadyBatch: ~Copyable, @unchecked Sendable {
    private let tokens: UnsafeMutableBufferPointer<UInt64>
    private let events: UnsafeMutableBufferPointer<UInt32>
    private var cursor = 0

    /// How many descriptors the last wait reported.
    public private(set) var count = 0

    /// An empty batch.
    ///
    /// - Parameter capacity: The most descriptors that one wait reports; others wait for their turn.
    /// - Precondition: `capacity` is in `1 ... 64`.
    public init(capacity: Int = 64) {
        precondition((1...64).contains(capacity), "a batch has room for 1 to 64 descriptors")
        unsafe tokens = .allocate(capacity: capacity)
        unsafe tokens.initialize(repeating: 0)
        unsafe events = .allocate(capacity: capacity)
        unsafe events.initialize(repeating: 0)
    }

    deinit {
        unsafe tokens.deallocate()
        unsafe events.deallocate()
    }

    /// Takes the next descriptor that is ready, or `nil` if none is left.
    public mutating func next() -> PollSet.Ready? {
        guard cursor < count else { return nil }
        defer { cursor += 1 }
        return PollSet.Ready(
            token: unsafe tokens[cursor], readiness: PollSet.Readiness(rawValue: unsafe events[cursor]))
    }

    mutating func refill(
        _ fill: (UnsafeMutableBufferPointer<UInt64>, UnsafeMutableBufferPointer<UInt32>) -> CInt
    ) -> CInt {
        cursor = 0
        let filled = unsafe fill(tokens, events)
        count = max(0, Int(filled))
        return filled
    }
}
