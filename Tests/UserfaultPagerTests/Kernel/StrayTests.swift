import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Memory that is registered before the pager knows of it, later, or by growing.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct StrayTests {
    static let page = PageSize.base.bytes
    static let services: [PagerConfiguration.Service] = [.inline, .workers(2)]

    private func pager(
        _ uffd: consuming UserfaultFD, _ strays: StrayPolicy, _ service: PagerConfiguration.Service = .inline
    ) throws -> Pager<NumberedSource> {
        try Pager(
            uffd, source: NumberedSource(), configuration: PagerConfiguration(service: service, strays: strays))
    }

    // MARK: Registered by somebody else

    @Test(arguments: services)
    func aFaultWaitsForItsRegion(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 8 * Self.page)
        let range = mapping.range
        let uffd = try UserfaultFD()
        _ = try uffd.register(range, modes: .missing)
        let pager = try pager(uffd, .wait, service)
        try pager.start()
        let words = Shared(Mutex<[Int: UInt64]>([:]))
        let touchers = [0, 3, 3, 7].map { page in
            Toucher {
                let word = range.loadWord(page * Self.page)
                words.value.withLock { $0[page] = word }
            }
        }
        #expect(wait { pager.core.memories[0].kept.withLock { $0.count } == 3 && pager.statistics.strayFaults == 4 })
        #expect(words.value.withLock { $0.isEmpty })
        // One page of another region does not let the others go.
        try pager.add(
            range.part(at: 7 * Self.page, count: Self.page), offset: 7 * Self.page,
            options: RegionOptions(registration: .byOwner))
        #expect(touchers[3].join())
        #expect(words.value.withLock { $0.count } == 1)
        try pager.add(range.part(at: 0, count: 7 * Self.page), options: RegionOptions(registration: .byOwner))
        for toucher in touchers { #expect(toucher.join()) }
        for (page, word) in words.value.withLock(\.self) { #expect(word == NumberedSource.word(page * Self.page)) }
        try pager.stop(.poison)
        #expect(pager.statistics.failures == 0)
    }

    /// The region is there before its memory is.
    @Test
    func aRegionWaitsForItsMemory() throws {
        // Where the kernel places nothing that is not asked for.
        let mapping = try Mapping(anonymous: 64 * Self.page, placement: .at(1 << 35))
        let range = mapping.range
        try mapping.unmap()
        let uffd = try UserfaultFD()
        let second = try uffd.duplicate()
        let pager = try pager(uffd, .poison)
        let region = try pager.add(range, options: RegionOptions(readAhead: .none, registration: .byOwner))
        try pager.start()
        // Neither of these finds anything.
        try pager.populate(region)
        #expect(pager.statistics.bytesFilled == 0)
        let again = try Mapping(anonymous: 64 * Self.page, placement: .at(range.start))
        try pager.populate(region)
        #expect(pager.statistics.bytesFilled == 0)
        _ = try second.register(again.range, modes: .missing)
        #expect(Toucher.value { range.loadWord(5 * Self.page) } == NumberedSource.word(5 * Self.page))
        try pager.populate(region)
        #expect(pager.settledStatistics.pagesCopied == 64)
        // From here on the memory is nobody's.
        try pager.remove(region, .populate)
        #expect((try? second.unregister(again.range)) != nil)
        try again.advise(.dontNeed)
        #expect(again.range.loadWord(0) == 0)
        try pager.stop(.poison)
    }

    /// What nobody came to know at the end is poisoned, and nobody waits on.
    @Test(arguments: services)
    func aKeptFaultIsPoisonedAtTheEnd(service: PagerConfiguration.Service) async {
        let isInline = service == .inline
        await #expect(processExitsWith: .signal(SIGBUS)) { [isInline = isInline as Bool] in
            alarm(20)
            let mapping = try Mapping(anonymous: StrayTests.page)
            let range = mapping.range
            let uffd = try UserfaultFD()
            _ = try uffd.register(range, modes: .missing)
            let pager = try StrayTests().pager(uffd, .wait, isInline ? .inline : .workers(2))
            try pager.start()
            let toucher = Toucher { _ = range.loadWord(0) }
            wait { pager.core.memories[0].kept.withLock { $0.count } == 1 }
            try pager.stop(.populate)
            _ = toucher.join()
        }
    }

    @Test(arguments: services)
    func anotherPolicyDecidesForThoseThatWait(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 4 * Self.page)
        let range = mapping.range
        let uffd = try UserfaultFD()
        _ = try uffd.register(range, modes: .missing)
        let pager = try pager(uffd, .wait, service)
        try pager.start()
        let toucher = Toucher { _ = range.loadWord(Self.page) }
        #expect(wait { pager.core.memories[0].kept.withLock { $0.count } == 1 })
        try pager.setStrayPolicy(.zeros)
        #expect(toucher.join())
        #expect(Toucher.value { range.loadWord(0) | range.loadWord(Self.page) } == 0)
        try pager.stop(.poison)
        #expect(pager.statistics.failures == 0)
    }

    /// The user is asked, and adds the region while the fault waits.
    @Test(arguments: services)
    func theUserAnswers(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 4 * Self.page)
        let range = mapping.range
        let uffd = try UserfaultFD()
        _ = try uffd.register(range, modes: .missing)
        let box = Shared(Mutex<Pager<NumberedSource>?>(nil))
        let asked = Shared(Mutex<[StrayFault]>([]))
        let policy = StrayPolicy.ask { fault in
            asked.value.withLock { $0.append(fault) }
            guard fault.address >= range.start + UInt(2 * Self.page) else { return .zeros }
            let rest = range.part(at: 2 * Self.page, count: 2 * Self.page)
            _ = try? box.value.withLock(\.self)?.add(
                rest, offset: 2 * Self.page, options: RegionOptions(inFork: .unserved, registration: .byOwner))
            return .wait
        }
        let pager = try pager(uffd, policy, service)
        box.value.withLock { $0 = pager }
        try pager.start()
        #expect(Toucher.value { range.loadWord(0) } == 0)
        #expect(Toucher.value { range.loadWord(3 * Self.page) } == NumberedSource.word(3 * Self.page))
        range.store(1, at: Self.page)
        let faults = asked.value.withLock(\.self)
        #expect(faults.map(\.address) == [0, 3, 1].map { range.start + UInt($0 * Self.page) })
        #expect(faults.map(\.isWrite) == [false, false, true])
        #expect(faults.map(\.adjoinsRegion) == [false, false, true])
        box.value.withLock { $0 = nil }
        try pager.stop(.poison)
    }

    @Test
    func aStrayEndsItsProcess() throws {
        let mapping = try Mapping(anonymous: 4 * Self.page)
        let client = try Client.start(mapping)
        let uffd = try client.receive()
        _ = try uffd.register(mapping.range, modes: .missing)
        let pager = try Pager(
            uffd, source: NumberedSource(), owner: try #require(Owner.process(id: client.pid)),
            configuration: PagerConfiguration(strays: .killOwner))
        try pager.start()
        client.go()
        #expect(client.wait() == -Int(SIGKILL))
        try pager.stop(.poison)
    }

    /// A write to a protected page has a page: there is nothing to decide.
    @Test
    func aProtectedStrayIsWritten() throws {
        let mapping = try Mapping(anonymous: Self.page, options: .populate)
        let range = mapping.range
        let uffd = try UserfaultFD(features: .writeProtect)
        _ = try uffd.register(range, modes: .writeProtect)
        try uffd.writeProtect(range, .protect)
        let pager = try pager(uffd, .poison)
        try pager.start()
        let toucher = Toucher { range.store(7, at: 0) }
        #expect(toucher.join())
        #expect(range.load(0) == 7)
        try pager.stop(.poison)
    }

    /// A fault that was read before its region went is no stray: nobody is killed for it.
    @Test(arguments: services)
    func aRegionThatGoesLeavesNoStrays(service: PagerConfiguration.Service) async {
        let isInline = service == .inline
        await #expect(processExitsWith: .success) { [isInline = isInline as Bool] in
            alarm(60)
            let range = try Mapping(anonymous: 64 * pageBytes).release()
            let pager = try StrayTests().pager(UserfaultFD(), .killOwner, isInline ? .inline : .workers(2))
            try pager.start()
            let isOver = Shared(Atomic<Bool>(false))
            let touchers = (0..<3).map { number in
                Toucher {
                    var page = number
                    while !isOver.value.load(ordering: .relaxed) {
                        page = (page + 7) % 64
                        _ = range.loadWord(page * pageBytes)
                    }
                }
            }
            for _ in 0..<2000 {
                let region = try pager.add(range, options: RegionOptions(readAhead: .none))
                try AddressSpace.advise(.dontNeed, range)
                try pager.remove(region, .leaveZeros)
            }
            isOver.value.store(true, ordering: .relaxed)
            for toucher in touchers { #expect(toucher.join()) }
        }
    }

    // MARK: Growth

    /// A large `realloc`, in place.
    @Test(arguments: services)
    func aMappingThatGrowsIsZeros(service: PagerConfiguration.Service) async {
        let isInline = service == .inline
        await #expect(processExitsWith: .success) { [isInline = isInline as Bool] in
            alarm(20)
            let page = StrayTests.page
            let range = try Mapping(anonymous: 2048 * page).release()
            let pager = try StrayTests().pager(UserfaultFD(), .poison, isInline ? .inline : .workers(2))
            try pager.add(range.part(at: 0, count: 16 * page), options: RegionOptions(readAhead: .none))
            try pager.start()
            // Room that nobody else takes meanwhile.
            try AddressSpace.unmap(range.dropFirst(16 * page))
            var mapping = Mapping(adopting: range.part(at: 0, count: 16 * page))
            try mapping.remap(count: range.count)
            #expect(mapping.release() == range)
            let words = Toucher.value { (0..<2048).map { range.loadWord($0 * page) } }
            #expect(words?.prefix(16).elementsEqual((0..<16).map { NumberedSource.word($0 * page) }) == true)
            #expect(words?.dropFirst(16).allSatisfy { $0 == 0 } == true)
            // Its region's, and one span.
            #expect(pager.statistics.strayFaults == 0)
            #expect(pager.core.memories[0].sharingOrder { _, machine in machine.spans.count } == 2)
            try pager.stop(.poison)
            #expect(pager.statistics.pagesPoisoned == 0)
            #expect(range.loadWord(2047 * page) == 0)
        }
    }

    /// A large `realloc` that moves, again and again.
    @Test(arguments: services)
    func aMappingThatMovesAndGrowsIsZeros(service: PagerConfiguration.Service) async {
        let isInline = service == .inline
        await #expect(processExitsWith: .success) { [isInline = isInline as Bool] in
            alarm(20)
            let page = StrayTests.page
            let mapping = try Mapping(anonymous: 16 * page)
            let uffd = try UserfaultFD(features: [.eventRemap, .eventUnmap, .eventRemove])
            let pager = try StrayTests().pager(uffd, .poison, isInline ? .inline : .workers(2))
            try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
            try pager.start()
            let first = mapping.release()
            let isRight = Toucher.value { () -> Bool in
                var range = first
                for round in 1...4 {
                    // Nothing can grow where it is.
                    guard let target = try? Mapping(anonymous: 4 * range.count).release() else { return false }
                    var mapping = Mapping(adopting: range)
                    guard (try? mapping.remap(count: 2 * range.count, to: .replacing(target.start))) != nil
                    else { return false }
                    range = mapping.release()
                    for number in 0..<range.count / page where (number + round) % 2 == 0 {
                        let expected = number < 16 ? NumberedSource.word(number * page) : 0
                        guard range.loadWord(number * page) == expected else { return false }
                    }
                }
                return true
            }
            #expect(isRight == true)
            try pager.stop(.poison)
        }
    }

    /// A stack grows downwards.
    @Test
    func aStackThatGrowsIsZeros() async {
        await #expect(processExitsWith: .success) {
            alarm(20)
            let page = StrayTests.page
            // Room below, which a mapping that grows keeps a distance from.
            let room = try Mapping(anonymous: 1024 * page).release()
            try AddressSpace.unmap(room)
            let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | 0x100
            let top = room.part(at: 1000 * page, count: 24 * page)
            let address = mmap(
                UnsafeMutableRawPointer(bitPattern: top.start), top.count, PROT_READ | PROT_WRITE, flags, -1, 0)
            #expect(address == UnsafeMutableRawPointer(bitPattern: top.start))
            let pager = try StrayTests().pager(UserfaultFD(), .poison)
            try pager.add(top)
            try pager.start()
            let words = Toucher.value { () -> [UInt64] in
                (0..<100).map { room.loadWord((1010 - $0) * page) }
            }
            let expected = (0..<100).map { $0 <= 10 ? NumberedSource.word((10 - $0) * page) : 0 }
            #expect(words == expected)
            try pager.stop(.poison)
        }
    }
}
