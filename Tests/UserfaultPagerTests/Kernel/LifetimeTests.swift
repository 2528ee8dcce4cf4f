import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// What a thread works on stays until it is done with it, and what clients share is one thing.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct LifetimeTests {
    /// Write faults while the region goes: several handlers, several writers.
    @Test
    func writeFaultsOutliveTheirRegion() async {
        await #expect(processExitsWith: .success) {
            alarm(60)
            let pages = 64
            let mapping = try Mapping(anonymous: pages * pageBytes, options: .populate)
            let range = mapping.range
            let pager = try Pager(
                UserfaultFD(features: [.writeProtect, .writeProtectUnpopulated]), source: NumberedSource(),
                configuration: PagerConfiguration(service: .inline, handlers: 3))
            try pager.start()
            let isOver = Shared(Atomic<Bool>(false))
            let writers = (0..<4).map { writer in
                Toucher {
                    var number = writer
                    while !isOver.value.load(ordering: .relaxed) {
                        range.store(1, at: number % pages * pageBytes)
                        number += 7
                    }
                }
            }
            for _ in 0..<300 {
                let region = try pager.add(range, options: RegionOptions(writeProtected: true))
                for _ in 0..<3 { _ = try pager.takeWritten(of: region) }
                try pager.remove(region, .populate)
            }
            isOver.value.store(true, ordering: .relaxed)
            for writer in writers { #expect(writer.join()) }
            try pager.stop(.poison)
        }
    }

    /// One client hears of what it drops, and the other does not: the page is made again for both.
    @Test
    func aDropOfOneClientIsNoZeroForAnother() async {
        await #expect(processExitsWith: .success) {
            alarm(20)
            let file = try Memfd(count: 8 * pageBytes)
            let pages = try SharedPages(file, from: NumberedSource())
            let first = try Mapping(file).release()
            let second = try Mapping(file).release()
            let hearing = try Pager(UserfaultFD(features: .eventRemove), source: pages.source)
            let deaf = try Pager(UserfaultFD(), source: pages.source)
            try hearing.add(first, options: RegionOptions(failure: .poisonAtOnce))
            try deaf.add(second, options: RegionOptions(failure: .poisonAtOnce))
            try hearing.start()
            try deaf.start()
            let expected = (0..<8).map { NumberedSource.word($0 * pageBytes) }
            for range in [first, second] {
                #expect(Toucher.value { (0..<8).map { range.loadWord($0 * pageBytes) } } == expected)
            }
            #expect(Toucher.value { (try? AddressSpace.advise(.remove, first)) != nil } == true)
            for range in [first, second, first] {
                #expect(Toucher.value { (0..<8).map { range.loadWord($0 * pageBytes) } } == expected)
            }
            try hearing.stop(.poison)
            try deaf.stop(.poison)
        }
    }
}
