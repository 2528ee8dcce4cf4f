import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite(.serialized, .timeLimit(.minutes(5)))
struct FailureTests {
    static let services: [PagerConfiguration.Service] = [.inline, .workers(2)]

    @Test(arguments: services)
    func aSourceThatFailsIsAskedAgain(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let pager = try Pager(
            UserfaultFD(), source: FlakySource(failures: 2), configuration: PagerConfiguration(service: service))
        try pager.add(
            mapping.range, options: RegionOptions(failure: FailurePolicy(retries: 2, backOff: .microseconds(100))))
        try pager.start()
        let range = mapping.range
        #expect(Toucher.value { range.loadWord(0) } == NumberedSource.word(0))
        try pager.stop(.poison)
        #expect(pager.settledStatistics.retries == 2)
        #expect(pager.statistics.failures == 0)
    }

    @Test
    func aSourceThatAlwaysFailsEndsInSIGBUS() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            _ = try touchOnePage(of: FlakySource(failures: .max))
        }
        await #expect(processExitsWith: .signal(SIGBUS)) {
            _ = try touchOnePage(
                of: FlakySource(failures: .max), configuration: PagerConfiguration(service: .workers(2)))
        }
    }

    /// The program dropped it meanwhile: nothing is lost, and there is nothing to fail.
    @Test(arguments: [0, 2])
    func aPageThatIsRemovedWhileItsLoadFailsIsZeros(workers: Int) async {
        await #expect(processExitsWith: .success) { [workers] in
            alarm(60)
            let mapping = try Mapping(anonymous: pageBytes)
            let gate = Gate()
            let source = ClosureSource<Unavailable> { _, _ throws(Unavailable) in
                gate.pass()
                throw Unavailable()
            }
            let pager = try Pager(
                UserfaultFD(features: .eventRemove), source: source,
                configuration: PagerConfiguration(
                    service: workers == 0 ? .inline : .workers(workers), handlers: 2))
            try pager.add(mapping.range, options: RegionOptions(readAhead: .none, failure: .poisonAtOnce))
            try pager.start()
            let range = mapping.range
            let toucher = Toucher { range.loadWord(0) }
            #expect(gate.waitUntilReached())
            let dropper = Toucher { try? AddressSpace.advise(.dontNeed, range.part(at: 0, count: pageBytes)) }
            #expect(dropper.join())
            gate.open()
            #expect(toucher.value() == 0)
            try pager.stop(.poison)
            #expect(pager.statistics.pagesPoisoned == 0)
        }
    }

    @Test
    func killOwnerKills() async {
        await #expect(processExitsWith: .signal(SIGKILL)) {
            _ = try touchOnePage(
                of: FlakySource(failures: .max), options: RegionOptions(failure: .killOwnerAtOnce))
        }
    }

    @Test
    func aSourceThatTakesTooLongEndsInSIGBUS() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            _ = try touchOnePage(
                of: ClosureSource<Never> { _, _ in while true { pause() } },
                configuration: PagerConfiguration(service: .inline, sourceTimeout: .milliseconds(50)))
        }
        await #expect(processExitsWith: .signal(SIGBUS)) {
            _ = try touchOnePage(
                of: ClosureSource<Never> { _, _ in while true { pause() } },
                configuration: PagerConfiguration(service: .workers(2), sourceTimeout: .milliseconds(50)))
        }
    }

    @Test
    func aFileThatIsCutEndsInSIGBUS() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let descriptor = try numberedFile(pages: 16).release()
            let source = try FileSource(adopting: descriptor)
            _ = ftruncate(descriptor, pageBytes)
            _ = try touchOnePage(of: source, page: 8)
        }
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let descriptor = try numberedFile(pages: 16).release()
            let source = try MappedFileSource(FileDescriptor(rawValue: descriptor))
            _ = ftruncate(descriptor, pageBytes)
            _ = try touchOnePage(of: source, page: 8)
        }
    }

    @Test
    func aSourceMayDeliverLessThanItIsAskedFor() throws {
        let mapping = try Mapping(anonymous: 256 * pageBytes)
        let source = ClosureSource<Never> { offset, pages in
            pages.append(repeating: NumberedSource.word(offset), count: pageBytes / 8, as: UInt64.self)
            return .data
        }
        let pager = try Pager(UserfaultFD(), source: source)
        try pager.add(mapping.range)
        try pager.start()
        let range = mapping.range
        let found = Toucher.value { (0..<256).map { range.loadWord($0 * pageBytes) } }
        #expect(found == (0..<256).map { NumberedSource.word($0 * pageBytes) })
        try pager.stop(.poison)
    }

    @Test
    func stopResolvesWhatIsOutstanding() throws {
        let mapping = try Mapping(anonymous: 4 * pageBytes)
        let gate = Gate()
        let source = ClosureSource<Never>(isSlow: true) { offset, pages in
            gate.pass()
            return NumberedSource().load(offset: offset, into: &pages)
        }
        let pager = try Pager(UserfaultFD(), source: source)
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let range = mapping.range
        let toucher = Toucher { range.loadWord(pageBytes) }
        #expect(gate.waitUntilReached())
        let stopper = Toucher { try? pager.stop(.poison) }
        // It has poisoned all but the one that the source has in hand.
        #expect(wait { pager.statistics.pagesPoisoned == 3 })
        gate.open()
        #expect(stopper.join())
        #expect(toucher.value() == NumberedSource.word(pageBytes))
    }

    @Test
    func aPagerThatIsDroppedPoisonsWhatItHasNotLoaded() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let mapping = try Mapping(anonymous: 4 * pageBytes)
            do {
                let pager = try Pager(UserfaultFD(), source: NumberedSource())
                try pager.add(mapping.range)
                try pager.start()
            }
            let range = mapping.range
            _ = Toucher.value { range.loadWord(0) }
        }
    }

    @Test
    func populatedMemoryNeedsNoPager() throws {
        let mapping = try Mapping(anonymous: 700 * pageBytes)
        let pager = try Pager(UserfaultFD(), source: NumberedSource())
        try pager.add(mapping.range)
        try pager.start()
        try pager.stop(.populate)
        let range = mapping.range
        #expect((0..<700).allSatisfy { range.loadWord($0 * pageBytes) == NumberedSource.word($0 * pageBytes) })
    }

    @Test
    func twoPagersCannotHaveOneRegion() throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let first = try Pager(UserfaultFD(), source: ZeroSource())
        let second = try Pager(UserfaultFD(), source: ZeroSource())
        try first.add(mapping.range)
        let error = #expect(throws: PagerError.self) { try second.add(mapping.range) }
        guard case .kernel(let refusal) = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        #expect(refusal.reason == .busy)
        try second.stop(.poison)
        try first.stop(.poison)
    }

    @Test
    func anEmptyHugePagePoolEndsInSIGBUS() async {
        await #expect(processExitsWith: .signal(SIGBUS)) {
            let mapping = try Mapping(anonymous: 2 << 20, hugePages: .twoMiB, options: .noReserve)
            // Whatever the host has in its pool is used up, one page after the other.
            while let page = try? Mapping(anonymous: 2 << 20, hugePages: .twoMiB) { page.release().store(1, at: 0) }
            let pager = try Pager(UserfaultFD(), source: ZeroSource())
            try pager.add(
                mapping.range,
                options: RegionOptions(
                    pageSize: .twoMiB, failure: FailurePolicy(retries: 1, backOff: .microseconds(100))))
            try pager.start()
            let range = mapping.range
            _ = Toucher.value { range.loadWord(0) }
        }
    }

    /// With one worker, the fault that it waits for is behind itself in the queue.
    @Test(arguments: [0, 1])
    func aSourceThatTouchesServedMemoryIsReported(workers: Int) async {
        let result = await #expect(
            processExitsWith: .signal(SIGBUS), observing: [\.standardErrorContent]
        ) { [workers] in
            let mapping = try Mapping(anonymous: 16 * pageBytes)
            let range = mapping.range
            let source = ClosureSource<Never> { offset, pages in
                if offset == 0 { _ = range.loadWord(pageBytes) }
                return NumberedSource().load(offset: offset, into: &pages)
            }
            let pager = try Pager(
                UserfaultFD(features: .threadID), source: source,
                configuration: PagerConfiguration(
                    service: workers == 0 ? .inline : .workers(workers), watchdogInterval: .milliseconds(50),
                    report: { report in
                        if case .selfDeadlock = report { _ = write(2, "self-deadlock\n", 14) }
                    }))
            try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
            try pager.start()
            _ = Toucher.value { range.loadWord(0) }
            _exit(1)
        }
        let text = String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
        #expect(text.contains("self-deadlock"))
    }
}
