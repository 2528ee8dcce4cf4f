import Testing

@testable import UserfaultPager

@Suite
struct RateLimitTests {
    private static let second: UInt64 = 1_000_000_000

    @Test
    func whatWasTakenIsPaidForBeforeMoreIsTaken() {
        let limit = RateLimit(bytesPerSecond: 1000)
        let start = 5 * Self.second
        var next = UInt64.max
        #expect(limit.isOpen(at: start, next: &next))
        limit.charge(500, at: start)
        limit.charge(1000, at: start)
        #expect(!limit.isOpen(at: start + Self.second, next: &next))
        #expect(next == start + Self.second * 3 / 2)
        #expect(limit.isOpen(at: next, next: &next))
        // What was not used is not saved up.
        limit.charge(1000, at: 100 * Self.second)
        #expect(!limit.isOpen(at: 101 * Self.second - 1, next: &next))
    }

    @Test
    func noTimeIsTooLong() {
        let limit = RateLimit(bytesPerSecond: 1)
        for _ in 0..<3 { limit.charge(.max, at: .max - 1) }
        var next = UInt64.max
        #expect(!limit.isOpen(at: .max - 1, next: &next))
    }
}
