import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// A pager fills what is its own: neither another's memory, nor that of a parent.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct OwnershipTests {
    /// Unmapped without a word, and mapped again by somebody who has a pager of his own.
    @Test(arguments: [Ending.populate, .poison])
    func anotherPagersMemoryIsLeftAlone(ending: Ending) async {
        let poisons = ending == .poison
        await #expect(processExitsWith: .success) { [poisons = poisons as Bool] in
            let count = 64 * pageBytes
            let mapping = try Mapping(anonymous: count)
            let first = try Pager(UserfaultFD(), source: NumberedSource())
            try first.add(mapping.range)
            try first.start()
            let range = mapping.range
            try mapping.unmap()
            let again = try Mapping(anonymous: count, placement: .at(range.start))
            let second = try Pager(UserfaultFD(), source: BytesSource([UInt8](repeating: 42, count: count).span.bytes))
            try second.add(again.range)
            try second.start()
            try first.stop(poisons ? .poison : .populate)
            let bytes = Toucher.value { (0..<64).map { range.load($0 * pageBytes) } }
            #expect(bytes == [UInt8](repeating: 42, count: 64))
            try second.stop(.poison)
        }
    }

    /// What the second pager hides from children stays hidden.
    @Test
    func anotherPagersMemoryStaysOutOfChildren() throws {
        let mapping = try Mapping(anonymous: 4 * pageBytes)
        let range = mapping.range
        let first = try Pager(UserfaultFD(), source: NumberedSource())
        try first.add(range)
        try first.start()
        try mapping.unmap()
        let again = try Mapping(anonymous: range.count, placement: .at(range.start))
        let second = try Pager(UserfaultFD(), source: NumberedSource())
        try second.add(again.range)
        try second.start()
        try first.stop(.poison)
        #expect(inFork { range.loadWord(0) == 0 ? 0 : 1 } == -Int(SIGSEGV))
        try second.stop(.poison)
        withExtendedLifetime(again) {}
    }

    /// Whose memory a descriptor knows is found out without a change.
    @Test(.hasLowAddresses)
    func aClientsMemoryStaysRegistered() throws {
        // All of where the question is asked.
        let start: UInt = 1 << 34
        let count = (1 << 37) - Int(start)
        let mapping = try Mapping(anonymous: count, placement: .at(start), options: .noReserve)
        let range = mapping.range
        let client = try Client.fork(serving: range) { socket, _ in
            var byte: UInt8 = 0
            guard Glibc.read(socket, &byte, 1) == 1 else { _exit(100) }
            _exit(0)
        }
        try mapping.unmap()
        let uffd = try client.receive()
        try uffd.register(range, modes: .missing)
        for _ in 0..<20 { #expect(try uffd.isOfThisProcess() == false) }
        // One mapping of the client's is registered: a page without would divide it.
        #expect(uffd.probe(range.part(at: 0, count: pageBytes)) == .thisDescriptor)
        #expect(uffd.probe(range) == .thisDescriptor)
        #expect(try UserfaultFD().isOfThisProcess() == true)
        client.go()
        #expect(client.wait() == 0)
    }

    @Test
    func regionsAndOwnersOfOthersAreRefused() throws {
        let mapping = try Mapping(anonymous: 4 * pageBytes)
        let range = mapping.range
        let first = try Pager(UserfaultFD(), source: NumberedSource())
        let second = try Pager(UserfaultFD(), source: NumberedSource())
        let region = try first.add(range.part(at: 0, count: 2 * pageBytes))
        try second.add(range.part(at: 2 * pageBytes, count: 2 * pageBytes))
        #expect(throws: PagerError.noSuchRegion) { try second.remove(region, .poison) }
        #expect(throws: PagerError.noSuchRegion) { try second.populate(region) }
        #expect(throws: PagerError.noSuchRegion) { try second.prefetch(region, count: pageBytes) }
        #expect(throws: PagerError.noSuchRegion) { try second.statistics(of: region) }
        let other = try #require(Owner.process(id: getppid()))
        let error = #expect(throws: PagerError.self) {
            _ = try Pager(UserfaultFD(), source: NumberedSource(), owner: other)
        }
        guard case .configuration = error else {
            Issue.record("\(String(describing: error))")
            return
        }
    }

    /// A failure that is not to be survived needs no descriptor.
    @Test
    func thisProcessIsKilledWithoutAFreeDescriptor() async {
        await #expect(processExitsWith: .signal(SIGKILL)) {
            leaveDescriptors(0)
            Owner.currentProcess.kill()
        }
    }

    /// The same without a second pager: plain memory of the program's.
    @Test(arguments: [Ending.populate, .poison])
    func plainMemoryIsLeftAlone(ending: Ending) async {
        let poisons = ending == .poison
        await #expect(processExitsWith: .success) { [poisons = poisons as Bool] in
            let count = 64 * pageBytes
            let mapping = try Mapping(anonymous: count)
            let pager = try Pager(UserfaultFD(), source: NumberedSource())
            try pager.add(mapping.range)
            try pager.start()
            let range = mapping.range
            try mapping.unmap()
            let again = try Mapping(anonymous: count, placement: .at(range.start))
            try pager.stop(poisons ? .poison : .populate)
            for page in 0..<64 { #expect(again.range.load(page * pageBytes) == 0) }
        }
    }

    @Test(.startsThreadsAfterFork)
    func aChildThatDropsItsPagerDoesNothingToItsParent() async {
        await #expect(processExitsWith: .success) {
            alarm(60)
            let mapping = try Mapping(anonymous: 64 * pageBytes)
            let range = mapping.range
            var pager: Pager<NumberedSource>? = try Pager(UserfaultFD(), source: NumberedSource())
            let region = try pager!.add(range, options: RegionOptions(readAhead: .none))
            try pager!.start()
            #expect(Toucher.value { range.loadWord(0) } == NumberedSource.word(0))
            let status = inFork {
                // Each is refused, and none waits.
                if (try? pager!.populate(region)) != nil { return 1 }
                if (try? pager!.add(range)) != nil { return 2 }
                if (try? pager!.stop(.poison)) != nil { return 3 }
                pager = nil
                return 0
            }
            #expect(status == 0)
            let words = Toucher.value { (0..<64).map { range.loadWord($0 * pageBytes) } }
            #expect(words == (0..<64).map { NumberedSource.word($0 * pageBytes) })
            try pager!.stop(.poison)
            #expect(pager!.statistics.pagesPoisoned == 0)
        }
    }

    /// A thread that is gone in the child may have held any lock.
    @Test(.startsThreadsAfterFork)
    func aChildOfAForkWaitsForNoLock() async {
        await #expect(processExitsWith: .success) {
            alarm(60)
            let mapping = try Mapping(anonymous: 4 * pageBytes)
            let pager = try Pager(UserfaultFD(), source: NumberedSource())
            let region = try pager.add(mapping.range)
            try pager.start()
            let status = pager.core.registry.withLock { _ in
                inFork {
                    guard pager.statistics == PagerStatistics(), pager.regions.isEmpty else { return 1 }
                    let refusals = [
                        error { () throws(PagerError) in _ = try pager.takeWrittenRanges(of: region) },
                        error { () throws(PagerError) in try pager.prefetch(region, count: pageBytes) },
                        error { () throws(PagerError) in _ = try pager.statistics(of: region) },
                        error { () throws(PagerError) in _ = try pager.countUnfilledBytes() },
                        error { () throws(PagerError) in try pager.setStrayPolicy(.poison) },
                        error { () throws(PagerError) in try pager.pause() },
                    ]
                    return refusals.allSatisfy { $0 == .otherProcess } ? 0 : 2
                }
            }
            #expect(status == 0)
            try pager.stop(.poison)
        }
    }

    @Test
    func aReceivedDescriptorNeedsAnOwner() throws {
        let mapping = try Mapping(anonymous: 4 * pageBytes)
        let client = try Client.start(mapping)
        let uffd = try client.receive()
        let error = #expect(throws: PagerError.self) {
            _ = try Pager(uffd.duplicate(), source: NumberedSource())
        }
        guard case .configuration = error else {
            Issue.record("\(String(describing: error))")
            return
        }
        let wrong = #expect(throws: PagerError.self) {
            _ = try Pager(uffd.duplicate(), source: NumberedSource(), owner: .currentProcess)
        }
        guard case .configuration = wrong else {
            Issue.record("\(String(describing: wrong))")
            return
        }
        let owner = try #require(Owner.process(id: client.pid))
        let pager = try Pager(uffd, source: NumberedSource(), owner: owner)
        try pager.add(mapping.range)
        try pager.start()
        client.go()
        #expect(client.wait() == 0)
        try pager.stop(.poison)
    }

    @Test
    func theOwnerIsKnownFromTheSocket() throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let pair = try UnixSocket.Pair()
        let own = try Owner.peer(of: FileDescriptor(rawValue: pair.first.rawValue))
        #expect(own.isCurrent)
        let client = try Client.start(mapping)
        let owner = try #require(Owner.process(id: client.pid))
        #expect(owner.processID == client.pid)
        #expect(try !owner.waitForEnd(within: .zero))
        kill(client.pid, SIGKILL)
        #expect(try owner.waitForEnd(within: .seconds(20)))
        #expect(client.wait() == -Int(SIGKILL))
    }

    /// What there is no room for is refused; nobody is killed for it.
    @Test(.fitsAddressSpaceLimit)
    func aTightAddressSpaceIsAnError() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: pageBytes)
            let range = mapping.range
            let maximum = Footprint().addressSpace
            // From just enough for nothing, to enough for all.
            var started = false
            for further in [1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 6144] where !started {
                let pager = try Pager(
                    UserfaultFD(), source: NumberedSource(), configuration: PagerConfiguration(service: .workers(8)))
                try pager.add(range)
                var limit = rlimit()
                getrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
                var tight = limit
                tight.rlim_cur = rlim_t(maximum + further << 20)
                setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &tight)
                started = (try? pager.start()) != nil
                setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
                if started {
                    #expect(further <= 256)
                    #expect(range.loadWord(0) == NumberedSource.word(0))
                } else {
                    // What it had registered is poisoned.
                    try AddressRangeAdvice.dontNeed(range)
                }
            }
            #expect(started)
        }
    }

    /// A sanitizer's shadow memory may lie wherever a page could be tried.
    @Test(.hasLowAddresses)
    func ownMemoryIsKnownInAProgramThatHasEveryLowAddress() async {
        await #expect(processExitsWith: .success) {
            let start: UInt = 1 << 34
            let taken = try Mapping(
                anonymous: (1 << 37) - Int(start), protection: .none, placement: .at(start), options: .noReserve)
            guard try UserfaultFD().isOfThisProcess() == true else { exit(2) }
            extendLifetime(taken)
        }
    }

    /// A thread of the parent's may have held a lock at the fork: it is not in the child, and lets go of nothing.
    @Test
    func aChildThatDropsACopyWaitsForNoLock() async {
        await #expect(processExitsWith: .success) {
            var memory: ServedMemory? = try ServedMemory(UserfaultFD())
            let gate = Gate()
            let unowned = Unmanaged.passUnretained(memory!)
            let holder = Toucher { unowned._withUnsafeGuaranteedRef { $0.kept.withLock { _ in gate.pass() } } }
            guard gate.waitUntilReached() else { exit(2) }
            let descriptor = memory!.rawDescriptor
            let status = inFork(seconds: 10) {
                // What a thread refers to that is not in the child.
                while !isKnownUniquelyReferenced(&memory) { unowned.release() }
                memory = nil
                // Its own descriptor is closed all the same.
                return fcntl(descriptor, F_GETFD) < 0 ? 0 : 1
            }
            gate.open()
            guard holder.join(), fcntl(descriptor, F_GETFD) >= 0 else { exit(3) }
            if status != 0 { exit(4) }
        }
    }
}
