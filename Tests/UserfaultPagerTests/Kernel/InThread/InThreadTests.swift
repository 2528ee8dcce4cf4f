import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Threads that serve their own faults.
///
/// Each test has a process of its own: `SIGBUS` is the process's.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct InThreadTests {
    @Test
    func pagesAreWhatTheSourceSays() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(NumberedSource(), pages: 256)
            #expect(memory.wrongPages == 0)
            let statistics = memory.pager.statistics
            #expect(statistics.pagesCopied == 256 && statistics.missingFaults < 256)
            try memory.pager.stop(.poison)
            // Ordinary memory.
            try memory.mapping.advise(.dontNeed)
            #expect(memory.range.loadWord(0) == 0)
        }
    }

    @Test
    func everyReadySourceServes() async {
        await #expect(processExitsWith: .success) {
            let zeros = try InThread(ZeroSource())
            #expect((0..<16).allSatisfy { zeros.range.loadWord($0 * pageBytes) == 0 })
            #expect(zeros.pager.settledStatistics.pagesZeroed == 16)
            let file = try numberedFile(pages: 16)
            let descriptor = try file.withUnsafeDescriptor { try $0.duplicate() }
            #expect(try InThread(FileSource(adopting: descriptor.rawValue)).wrongPages == 0)
            let mapped = try file.withUnsafeDescriptor { try MappedFileSource($0) }
            #expect(try InThread(mapped).wrongPages == 0)
            let closure = ClosureSource<Never>(isSignalSafe: true) { NumberedSource().load(offset: $0, into: &$1) }
            #expect(try InThread(closure).wrongPages == 0)
        }
    }

    /// The heart of it all: CONTINUE, for both ways of mapping a file.
    @Test(arguments: [true, false])
    func sharedPagesAreContinued(isShared: Bool) async {
        await #expect(processExitsWith: .success) { [isShared] in
            let file = try Memfd(count: 16 * pageBytes)
            let pages = try SharedPages(file, from: NumberedSource())
            let range = try Mapping(file, sharing: isShared ? .shared : .private).release()
            let pager = try Pager(UserfaultFD(features: .sigbus), source: pages.source)
            try pager.add(range)
            for page in 0..<16 { #expect(range.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes)) }
            #expect(pager.settledStatistics.pagesContinued == 16)
            range.store(7, at: 3 * pageBytes)
            let inFile = try Mapping(file).release().load(3 * pageBytes)
            #expect(inFile == (isShared ? 7 : UInt8(truncatingIfNeeded: NumberedSource.word(3 * pageBytes))))
        }
    }

    /// However many threads touch a page at once, it is loaded once, and all of them see it.
    @Test
    func onePageIsLoadedOnce() async {
        await #expect(processExitsWith: .success) {
            let gate = Gate()
            let memory = try InThread(GatedSource(gate: gate), options: RegionOptions(readAhead: .none))
            let range = memory.range
            let touchers = (0..<32).map { _ in Toucher { range.loadWord(0) } }
            #expect(gate.waitUntilReached())
            // One that comes after the page is there looks twice, and has it loaded again if another does so as well.
            #expect(wait { Footprint.sleepingThreads(named: "toucher") == 32 })
            gate.open()
            for toucher in touchers { #expect(toucher.value() == NumberedSource.word(0)) }
            #expect(memory.pager.settledStatistics.load.count == 1)
        }
    }

    @Test
    func aPageThatIsDroppedComesAgain() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(NumberedSource())
            for _ in 0..<20 {
                #expect(memory.wrongPages == 0)
                try memory.mapping.advise(.dontNeed)
            }
        }
    }

    @Test
    func writesAreTracked() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(
                NumberedSource(), features: .writeProtect, options: RegionOptions(writeProtected: true))
            let range = memory.range
            for round in 0..<3 {
                for page in [round, 7, 15] { range.store(UInt8(round), at: page * pageBytes) }
                #expect(try memory.pager.takeWritten(of: memory.region) == [round, 7, 15].map { $0 * pageBytes })
                #expect(try memory.pager.takeWritten(of: memory.region) == [])
            }
            #expect(
                range.load(7 * pageBytes) == 2 && range.loadWord(5 * pageBytes) == NumberedSource.word(5 * pageBytes))
        }
    }

    @Test
    func populateAndStopWork() async {
        await #expect(processExitsWith: .success) {
            LastSignal.noteFaults()
            let memory = try InThread(NumberedSource(), pages: 64)
            let range = memory.range
            #expect(range.loadWord(0) == NumberedSource.word(0))
            try memory.pager.populate(memory.region)
            #expect(memory.pager.settledStatistics.pagesCopied == 64)
            try memory.pager.stop(.populate)
            #expect(memory.wrongPages == 0)
            let second = try InThread(NumberedSource(), options: RegionOptions(readAhead: .none))
            #expect(second.range.loadWord(0) == NumberedSource.word(0))
            try second.pager.stop(.poison)
            #expect(second.range.loadWord(0) == NumberedSource.word(0))
            _ = second.range.loadWord(pageBytes)
            #expect(LastSignal.count == 1 && LastSignal.address == second.range.start + UInt(pageBytes))
        }
    }

    /// A thread whose fault comes while the region goes finds ordinary memory, or the page.
    @Test
    func regionsComeAndGoUnderFaults() async {
        await #expect(processExitsWith: .success) {
            let memory = try InThread(NumberedSource())
            let range = try Mapping(anonymous: 64 * pageBytes).release()
            let isOver = Shared(Atomic<Bool>(false))
            let touchers = (0..<3).map { number in
                Toucher {
                    var wrong = 0
                    var page = number
                    while !isOver.value.load(ordering: .relaxed) {
                        page = (page + 7) % 64
                        let word = range.loadWord(page * pageBytes)
                        if word != NumberedSource.word(page * pageBytes), word != 0 { wrong += 1 }
                    }
                    return wrong
                }
            }
            for _ in 0..<200 {
                let region = try memory.pager.add(range)
                try AddressSpace.advise(.dontNeed, range)
                try memory.pager.remove(region, .populate)
            }
            isOver.value.store(true, ordering: .relaxed)
            for toucher in touchers { #expect(toucher.value() == 0) }
        }
    }

    /// A source may be memory that another pager serves in the same thread.
    @Test(.nestsSignals)
    func aSourceMayBeServedItself() async {
        await #expect(processExitsWith: .success) {
            let base = try InThread(NumberedSource())
            let range = base.range
            let source = ClosureSource<Never>(isSignalSafe: true) { offset, pages in
                pages.append(repeating: range.loadWord(offset), count: pageBytes / 8, as: UInt64.self)
                return .data
            }
            #expect(try InThread(source).wrongPages == 0)
        }
    }

    @Test
    func aSourceThatHangsDoesNotHoldUpTheEnd() async {
        await #expect(processExitsWith: .success) {
            let gate = Gate()
            LastSignal.noteFaults()
            let memory = try InThread(GatedSource(gate: gate), options: RegionOptions(readAhead: .none))
            let range = memory.range
            let toucher = Toucher { range.loadWord(0) }
            #expect(gate.waitUntilReached())
            try memory.pager.stop(.poison, within: .milliseconds(100))
            gate.open()
            // The late answer changes nothing: the page is poisoned.
            #expect(toucher.join())
            #expect(LastSignal.count == 1)
        }
    }
}
