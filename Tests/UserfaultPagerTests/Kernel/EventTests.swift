import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite(.serialized, .timeLimit(.minutes(5)))
struct EventTests {
    static let services: [PagerConfiguration.Service] = [.inline, .workers(3)]

    private func pager(
        _ features: UserfaultFD.Features, _ service: PagerConfiguration.Service, handlers: Int = 2
    ) throws -> Pager<NumberedSource> {
        try Pager(
            UserfaultFD(features: features), source: NumberedSource(),
            configuration: PagerConfiguration(service: service, handlers: handlers))
    }

    @Test(arguments: services)
    func removedPagesAreZeros(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let pager = try pager(.eventRemove, service)
        try pager.add(mapping.range)
        try pager.start()
        let range = mapping.range
        let words = Toucher.value {
            let before = range.loadWord(pageBytes)
            try? AddressSpace.advise(.dontNeed, range.part(at: 0, count: 32 * pageBytes))
            return [before, range.loadWord(pageBytes), range.loadWord(31 * pageBytes), range.loadWord(40 * pageBytes)]
        }
        #expect(words == [NumberedSource.word(pageBytes), 0, 0, NumberedSource.word(40 * pageBytes)])
        try pager.stop(.poison)
    }

    @Test(arguments: services)
    func movedPagesKeepTheirPlaceInTheSource(service: PagerConfiguration.Service) throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let target = try Mapping(anonymous: 64 * pageBytes)
        let pager = try pager([.eventRemap, .eventUnmap], service)
        try pager.add(mapping.range)
        try pager.start()
        let range = mapping.range
        let new = target.range
        let words = Toucher.value {
            let before = range.loadWord(pageBytes)
            _ = try? AddressSpace.move(range, to: new.start)
            return [before, new.loadWord(pageBytes), new.loadWord(63 * pageBytes)]
        }
        #expect(
            words == [
                NumberedSource.word(pageBytes), NumberedSource.word(pageBytes), NumberedSource.word(63 * pageBytes),
            ])
        _ = mapping.release()
        try pager.stop(.poison)
    }

    @Test(.followsForks)
    func childrenAreServedAsTheirParentWas() throws {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let pager = try pager([.eventFork, .eventRemove], .workers(3))
        try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
        try pager.start()
        let range = mapping.range
        let status = Toucher.value {
            _ = range.loadWord(pageBytes)
            try? AddressSpace.advise(.dontNeed, range.part(at: 0, count: 2 * pageBytes))
            return inFork {
                if range.loadWord(pageBytes) != 0 { return 1 }
                if range.loadWord(0) != 0 { return 2 }
                for page in 2..<64 where range.loadWord(page * pageBytes) != NumberedSource.word(page * pageBytes) {
                    return 3
                }
                return 0
            }
        }
        #expect(status == 0)
        try pager.stop(.poison)
        let open = pager.core.children.filter { !$0.isVacant }.count
        #expect(open == 0)
    }

    /// Places are taken by children that live: what has ended makes room for the next fork.
    @Test(.followsForks)
    func oneChildAfterTheOtherNeedsOnePlace() throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let pager = try Pager(
            UserfaultFD(features: .eventFork), source: NumberedSource(),
            configuration: PagerConfiguration(service: .workers(1), maximumChildren: 1))
        try pager.add(mapping.range)
        try pager.start()
        let range = mapping.range
        for _ in 0..<20 {
            #expect(inFork { range.loadWord(0) == NumberedSource.word(0) ? 0 : 1 } == 0)
        }
        try pager.stop(.poison)
    }

    /// Children for which there is no place find poison, however many they are, and their parent loses nothing.
    @Test(.takesNoMemoryWhileItForks)
    func childrenWithoutAPlaceReadNoZeros() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: 8 * pageBytes)
            let range = mapping.range
            let pager = try Pager(
                UserfaultFD(features: .eventFork), source: NumberedSource(),
                configuration: PagerConfiguration(service: .workers(1), maximumChildren: 1))
            let region = try pager.add(range, options: RegionOptions(readAhead: .none))
            try pager.start()
            var ends: [CInt] = [-1, -1]
            guard pipe(&ends) == 0 else { exit(2) }
            let children = (0..<3).map { _ in
                let pid = fork()
                if pid == 0 {
                    close(ends[1])
                    var byte: UInt8 = 0
                    _ = read(ends[0], &byte, 1)
                    let word = range.loadWord(pageBytes)
                    _exit(word == NumberedSource.word(pageBytes) ? 0 : word == 0 ? 3 : 4)
                }
                return pid
            }
            close(ends[1])
            close(ends[0])
            guard children.map({ end(of: $0) }) == [0, -Int(SIGBUS), -Int(SIGBUS)] else { exit(3) }
            try pager.populate(region)
            for page in 0..<8 {
                guard range.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes) else { exit(5) }
            }
            try pager.stop(.poison)
        }
    }

    /// Without a descriptor for the child its event cannot be read: the fork waits, and nobody is killed.
    @Test(.takesNoMemoryWhileItForks)
    func aForkWaitsForAFreeDescriptor() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: 2 * pageBytes)
            let reports = Reports()
            let pager = try Pager(
                UserfaultFD(features: .eventFork), source: NumberedSource(),
                configuration: PagerConfiguration(service: .workers(1), report: { reports.add($0) }))
            try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
            try pager.start()
            let range = mapping.range
            var limit = rlimit()
            getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            var none = rlimit(rlim_cur: 3, rlim_max: limit.rlim_max)
            let mayFork = Shared(Atomic<Bool>(false))
            let isForking = Shared(Atomic<Bool>(false))
            let forking = Toucher {
                wait { mayFork.value.load(ordering: .relaxed) }
                isForking.value.store(true, ordering: .relaxed)
                let pid = fork()
                if pid == 0 { _exit(range.loadWord(pageBytes) == NumberedSource.word(pageBytes) ? 0 : 1) }
                var status: CInt = 0
                waitpid(pid, &status, 0)
                precondition(status == 0)
            }
            // From here on this thread takes no memory: the fork holds the heap's locks.
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &none)
            mayFork.value.store(true, ordering: .relaxed)
            while !isForking.value.load(ordering: .relaxed) { NativeThread.yield() }
            // The reader says that it finds no descriptor free; nobody can be told while the fork holds the heap.
            let end = Deadline(after: .seconds(20))
            while pager.core.reports!.isDelivered, !end.hasPassed { NativeThread.yield() }
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            guard forking.join() else { exit(2) }
            guard reports.waitFor(.forkWaits) else { exit(3) }
            try pager.stop(.poison)
        }
    }

    /// A pager that stops meanwhile does not show zeros to the child.
    @Test(.takesNoMemoryWhileItForks)
    func aForkThatWaitsForADescriptorIsSealed() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: 2 * pageBytes)
            let range = mapping.range
            let client = try Client.startForking(range)
            let reports = Reports()
            let pager = try Pager(
                try client.receive(), source: NumberedSource(), owner: Owner.process(id: client.pid)!,
                configuration: PagerConfiguration(service: .workers(1), report: { reports.add($0) }))
            try pager.add(range, options: RegionOptions(readAhead: .none))
            try pager.start()
            leaveDescriptors(0)
            client.go()
            guard reports.waitFor(.forkWaits) else { exit(2) }
            try pager.stop(.poison)
            guard client.wait() == Client.busError else { exit(3) }
        }
    }

    /// Its event is there when the reading thread gets ready.
    @Test(.startsThreadsAfterFork)
    func aForkBeforeTheStartIsFollowed() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: 2 * pageBytes)
            let client = try Client.startForking(mapping.range)
            let pager = try Pager(
                try client.receive(), source: NumberedSource(), owner: Owner.process(id: client.pid)!,
                configuration: PagerConfiguration(service: .workers(1)))
            try pager.add(mapping.range, options: RegionOptions(readAhead: .none))
            client.go()
            let isForking = try pager.core.memories[0].withDescriptor { (uffd) throws(UserfaultError) in
                try uffd.poll(timeout: .seconds(20))
            }
            guard isForking else { exit(2) }
            try pager.start()
            guard client.wait() == Client.contentWord else { exit(3) }
            try pager.stop(.poison)
        }
    }

    /// A child's descriptor has the flags with which its parent's was opened.
    @Test(.followsForks)
    func childrenOfADescriptorThatWasOpenedBlockingAreServed() throws {
        let options = UserfaultFD.OpenOptions(nonBlocking: false)
        let isMade = Toucher.value { (try? UserfaultFD(features: .eventFork, options: options).status()) != nil }
        try #require(isMade == true, "opening waits for a message")
        let uffd = try UserfaultFD(features: .eventFork, options: options)
        let mapping = try Mapping(anonymous: pageBytes)
        let range = mapping.range
        let pager = try Pager(
            uffd, source: NumberedSource(), configuration: PagerConfiguration(service: .workers(1)))
        try pager.add(range)
        try pager.start()
        let gate = Gate()
        let forking = Toucher {
            inFork {
                gate.pass()
                return range.loadWord(0) == NumberedSource.word(0) ? 0 : 1
            }
        }
        #expect(wait { pager.core.children.contains { !$0.isVacant } })
        let children = pager.core.children.filter { !$0.isVacant }
        #expect(children.allSatisfy { $0.withDescriptor { $0.isNonBlocking } })
        gate.open()
        #expect(forking.value() == .some(0))
        try pager.stop(.poison)
    }

    /// The thread of a child may have the number of one of the pager's, in a namespace of its own.
    @Test(.followsForks)
    func threadsOfChildrenAreNotThePagers() throws {
        let mapping = try Mapping(anonymous: pageBytes)
        let pager = try Pager(UserfaultFD(features: [.eventFork, .threadID]), source: NumberedSource())
        pager.core.ownThreads.insert(17)
        let fault = PageFault(address: mapping.range.start, flags: [], threadID: 17)
        #expect(!pager.core.isSelfDeadlock(fault, of: pager.core.children[0]))
        #expect(pager.core.isSelfDeadlock(fault, of: pager.core.memories[0]))
    }

    /// A fork holds the heap's locks while it waits for the reader, which must have allocated all that it needs.
    @Test(.followsForks)
    func aForkRightAfterTheStartIsFollowed() throws {
        for _ in 0..<20 {
            let mapping = try Mapping(anonymous: pageBytes)
            let pager = try pager(.eventFork, .workers(2))
            try pager.add(mapping.range)
            try pager.start()
            let range = mapping.range
            #expect(inFork { range.loadWord(0) == NumberedSource.word(0) ? 0 : 1 } == 0)
            try pager.stop(.poison)
        }
    }

    /// A child that comes during a populate, in the place of one that has ended, has all its pages at its end.
    @Test(.followsForks)
    func aChildInTheSamePlaceIsPopulated() throws {
        // Kept: the child would unmap it on its way to its end.
        let range = try Mapping(anonymous: 4 * pageBytes).release()
        let source = NumberedLaterSource(isHeld: true)
        let pager = try Pager(
            UserfaultFD(features: .eventFork), source: AsynchronousSource(source),
            configuration: PagerConfiguration(maximumChildren: 1, watchdogInterval: .milliseconds(20)))
        let region = try pager.add(range, options: RegionOptions(readAhead: .none))
        try pager.start()
        #expect(inFork { 0 } == 0)
        #expect(wait { pager.core.children[0].hasEnded })
        let populating = Toucher { error { () throws(PagerError) in try pager.populate(region) } }
        #expect(wait { source.count > 0 })
        var ends: [CInt] = [-1, -1]
        try #require(pipe(&ends) == 0)
        let child = fork()
        if child == 0 {
            close(ends[1])
            var byte: UInt8 = 0
            guard read(ends[0], &byte, 1) == 0 else { _exit(2) }
            for page in 0..<4 where range.loadWord(page * pageBytes) != NumberedSource.word(page * pageBytes) {
                _exit(1)
            }
            _exit(0)
        }
        source.release()
        #expect(populating.value() == .some(nil))
        #expect(try pager.countUnfilledBytes() == 0)
        // What was not populated is poisoned before the child looks.
        try pager.stop(.poison)
        for descriptor in ends { close(descriptor) }
        #expect(end(of: child) == 0)
    }
}
