import Glibc
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Messages that a state file holds as if another process had read them.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct ForgedStateTests {
    /// - Parameter message: Four words, as the kernel's.
    /// - Returns: Why the state was refused, or `nil`.
    private static func resume(with message: [UInt64]) throws -> PagerError? {
        let mapping = try Mapping(anonymous: 8 * pageBytes)
        let range = mapping.range
        let uffd = try UserfaultFD(features: [.eventRemap, .eventUnmap])
        let owner = try #require(Owner.process(id: getpid()))
        let left = try PagerState()
        let entry = try left.file.makeEntry(id: 1, range, offset: 0, RegionOptions())
        left.file.commit(entry.slot)
        left.file[.features] = uffd.enabledFeatures.rawValue
        let table: [UInt64] = [1, 0, UInt64(range.start), UInt64(range.count), UInt64(entry.slot), 1, 0, 0]
        for (place, words) in [(StateFile.Place.tables, table), (StateFile.Place.messages, message)] {
            try words.withUnsafeBytes { bytes in
                _ = try left.withUnsafeDescriptor { try $0.writeAll(toAbsoluteOffset: Int64(place), bytes) }
            }
        }
        left.file[.begun] = 1
        let state = try left.withUnsafeDescriptor { try PagerState(duplicating: $0) }
        let resumed = try uffd.duplicate()
        do throws(PagerError) {
            let pager = try Pager(
                resuming: resumed, source: NumberedSource(), owner: owner,
                configuration: PagerConfiguration(state: state))
            try pager.stop(.leaveZeros)
            return nil
        } catch {
            return error
        }
    }

    private static func isRefused(_ message: [UInt64]) throws -> Bool {
        if case .state = try resume(with: message) { return true }
        return false
    }

    /// What the kernel can have said is taken in.
    @Test
    func anHonestMessageIsTakenIn() async {
        await #expect(processExitsWith: .success) {
            let refusal = try Self.resume(with: [0x15, 1 << 40, (1 << 40) + 2 * Self.page, 0])
            #expect(refusal == nil)
        }
    }

    private static let page = UInt64(pageBytes)
    private static let last = 0 &- page

    static let impossible: [[UInt64]] = [
        // Moves that wrap around, or are of half a page.
        [0x14, last, 1 << 36, 2 * page], [0x14, 1 << 36, last, 2 * page], [0x14, 1 << 36, 1 << 37, 100],
        // Ranges that end before they begin, or in the middle of a page.
        [0x15, 2 * page, page, 0], [0x16, 1, page, 0],
    ]

    @Test(arguments: impossible)
    func whatTheKernelCannotHaveSaidIsRefused(message: [UInt64]) async {
        await #expect(processExitsWith: .success) { [message] in
            let isRefused = try Self.isRefused(message)
            #expect(isRefused)
        }
    }

    /// The descriptor of a fork was the other process': here its number may be anything's.
    @Test
    func aForkClosesNothing() async {
        await #expect(processExitsWith: .success) {
            var ends: [CInt] = [-1, -1]
            try #require(pipe(&ends) == 0)
            let isRefused = try Self.isRefused([0x13, UInt64(ends[0]), 0, 0])
            #expect(isRefused)
            #expect(fcntl(ends[0], F_GETFD) >= 0)
        }
    }
}
