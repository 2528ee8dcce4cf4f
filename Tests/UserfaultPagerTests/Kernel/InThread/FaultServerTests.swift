import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Counts its departure.
private final class Visitor: FaultServer, @unchecked Sendable {
    private let departures: Shared<Atomic<Int>>

    init(_ departures: Shared<Atomic<Int>>) { self.departures = departures }

    override func depart() { departures.value.add(1, ordering: .relaxed) }
}

/// Counts how often it is asked for memory that it does not know.
private final class Onlooker: FaultServer, @unchecked Sendable {
    let strays = Atomic<Int>(0)

    override func serve(_ address: UInt, at seat: Int, _ search: Search) -> FaultSignal.Answer {
        if search == .strays { strays.add(1, ordering: .relaxed) }
        return .unclaimed
    }
}

@Suite(.serialized, .timeLimit(.minutes(5)))
struct FaultServerTests {
    /// A server that was made before another asks the kernel nothing about the other's memory.
    @Test func whoKnowsAnAddressServesIt() async {
        await #expect(processExitsWith: .success) {
            let onlooker = Onlooker()
            try FaultServers.add(onlooker)
            let range = try Mapping(anonymous: 8 * pageBytes).release()
            let pager = try Pager(UserfaultFD(features: .sigbus), source: NumberedSource())
            try pager.add(range)
            for page in 0..<8 { #expect(range.loadWord(page * pageBytes) == NumberedSource.word(page * pageBytes)) }
            let strays = onlooker.strays.load(ordering: .relaxed)
            #expect(strays == 0)
            try pager.stop(.poison)
            FaultServers.remove(onlooker, until: .never)
        }
    }

    /// One that was removed keeps its place until it was dismissed.
    @Test func everyServerThatIsRemovedDeparts() async {
        await #expect(processExitsWith: .success) {
            let departures = Shared(Atomic<Int>(0))
            let turns = 4000
            let touchers = (0..<4).map { _ in
                Toucher {
                    (0..<turns).allSatisfy { _ in
                        let server = Visitor(departures)
                        guard (try? FaultServers.add(server)) != nil else { return false }
                        FaultServers.remove(server, until: .never)
                        return true
                    }
                }
            }
            for toucher in touchers { #expect(toucher.value() == true) }
            #expect(departures.value.load(ordering: .relaxed) == 4 * turns)
        }
    }

    /// Who waits until nobody is with a server does not wait for those that are with the next one in its place.
    @Test func theNextServerInAPlaceIsNotWaitedFor() async {
        await #expect(processExitsWith: .success) {
            let departures = Shared(Atomic<Int>(0))
            let first = Visitor(departures)
            let second = Visitor(departures)
            try FaultServers.add(first)
            let place = try #require(FaultServers.withdraw(first))
            try FaultServers.add(second)
            guard departures.value.load(ordering: .relaxed) == 1 else { exit(2) }
            guard FaultServers.withdraw(second) == place else { exit(3) }
            try FaultServers.add(Visitor(departures))
            guard !FaultServers.isKept(first, at: place), !FaultServers.isKept(second, at: place) else { exit(4) }
        }
    }

    /// A child of a fork begins with no server, and lets go of none of its parent's.
    ///
    /// Nothing has a thread of its own: one that begins at the fork may hold locks of the language's runtime.
    @Test
    func aChildHasServersOfItsOwn() async {
        await #expect(processExitsWith: .success) {
            alarm(60)
            func serve() throws -> (Pager<NumberedSource>, AddressRange) {
                let range = try Mapping(anonymous: pageBytes).release()
                let pager = try Pager(UserfaultFD(features: .sigbus), source: NumberedSource())
                try pager.add(range)
                return (pager, range)
            }
            let (pager, range) = try serve()
            let descriptor = pager.core.memories[0].rawDescriptor
            let status = inFork {
                // As daemons do: what was open is not any more, and something else has its number.
                guard dup2(open("/dev/null", O_RDONLY), descriptor) == descriptor, let (own, memory) = try? serve(),
                    memory.loadWord(0) == NumberedSource.word(0)
                else { return 2 }
                guard fcntl(descriptor, F_GETFD) != -1 else { return 3 }
                try? own.stop(.poison)
                return 0
            }
            #expect(status == 0)
            #expect(range.loadWord(0) == NumberedSource.word(0))
            try pager.stop(.poison)
        }
    }

    /// Another thread may be adding a server at the moment of the fork.
    @Test
    func aChildWaitsForNoServerOfItsParent() async {
        await #expect(processExitsWith: .success) {
            let departures = Shared(Atomic<Int>(0))
            let isOver = Shared(Atomic<Bool>(false))
            // What is made once in a process is there before the first fork.
            let first = Visitor(departures)
            try FaultServers.add(first)
            FaultServers.remove(first, until: .never)
            let touchers = (0..<4).map { _ in
                Toucher {
                    while !isOver.value.load(ordering: .relaxed) {
                        let server = Visitor(departures)
                        guard (try? FaultServers.add(server)) != nil else { return false }
                        FaultServers.remove(server, until: .never)
                    }
                    return true
                }
            }
            for _ in 0..<100 {
                let status = inFork {
                    alarm(10)
                    let before = departures.value.load(ordering: .relaxed)
                    let server = Visitor(departures)
                    guard (try? FaultServers.add(server)) != nil else { return 2 }
                    FaultServers.remove(server, until: .never)
                    return departures.value.load(ordering: .relaxed) == before + 1 ? 0 : 3
                }
                guard status == 0 else { exit(status.map { $0 < 0 ? 100 - CInt($0) : CInt($0) } ?? 99) }
            }
            isOver.value.store(true, ordering: .relaxed)
            for toucher in touchers { #expect(toucher.value() == true) }
        }
    }

    /// Only threads that serve count in rows of their own, and not those that may.
    @Test func anIdlePagerTakesNoRows() async {
        await #expect(processExitsWith: .success) {
            let pagers = try (0..<3).map { _ in
                let pager = try Pager(UserfaultFD(features: .sigbus), source: ZeroSource())
                try pager.start()
                return pager
            }
            let row = CounterRow.take()
            #expect(row != CounterRow.shared)
            CounterRow.giveBack(row)
            for pager in pagers { try pager.stop(.poison) }
        }
    }
}
