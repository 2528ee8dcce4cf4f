import CUserfaultFD
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Each page's number, eight bytes at a time: what a page should hold follows from where it is.
struct NumberedSource: PageSource {
    static func word(_ offset: Int) -> UInt64 { UInt64(offset / 4096) &* 0x9E37_79B9_7F4A_7C15 | 1 }

    func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        var position = offset
        while pages.freeCapacity > 0 {
            pages.append(repeating: Self.word(position), count: 512, as: UInt64.self)
            position += 4096
        }
        return .data
    }
}

@Suite(.serialized, .timeLimit(.minutes(1)))
struct PagerTests {
    static let waitings: [PagerConfiguration.Waiting] = [.poll, .block, .spin, .adaptive()]

    @Test(arguments: waitings, [1, 3])
    func everyPageHoldsWhatTheSourceSays(waiting: PagerConfiguration.Waiting, handlers: Int) throws {
        let mapping = try Mapping(anonymous: 1024 * 4096)
        let pager = try Pager(
            UserfaultFD(), source: NumberedSource(),
            configuration: PagerConfiguration(waiting: waiting, handlers: handlers))
        try pager.add(mapping.range)
        try pager.start()
        let range = mapping.range
        let wrong = Toucher.value {
            stride(from: 0, to: range.count, by: 4096).filter { range.loadWord($0) != NumberedSource.word($0) }
        }
        #expect(wrong == [])
        try pager.stop(.poison)
        let statistics = pager.statistics
        #expect(statistics.pagesCopied >= 1024)
        #expect(statistics.missingFaults < 1024)
        #expect(statistics.service.count > 0)
    }

    @Test
    func shardsServeOneRegion() throws {
        let mapping = try Mapping(anonymous: 999 * 4096)
        let pager = try Pager(
            UserfaultFD(), source: NumberedSource(), configuration: PagerConfiguration(handlers: 2, shards: 2))
        try pager.add(mapping.range, offset: 8 * 4096)
        try pager.start()
        let range = mapping.range
        let wrong = Toucher.value {
            stride(from: 0, to: range.count, by: 4096)
                .filter { range.loadWord($0) != NumberedSource.word($0 + 8 * 4096) }
        }
        #expect(wrong == [])
        try pager.stop(.poison)
    }
}
