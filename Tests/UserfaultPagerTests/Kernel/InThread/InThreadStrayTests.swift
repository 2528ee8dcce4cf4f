import Glibc
import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// Faults outside of every region, in the threads that have them.
///
/// Each test has a process of its own: `SIGBUS` is the process's.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct InThreadStrayTests {
    /// A pager without regions, and memory that somebody else registers with its descriptor.
    struct Ground: ~Copyable {
        let pager: Pager<NumberedSource>
        let second: UserfaultFD
        let mapping: Mapping
        var range: AddressRange { mapping.range }

        init(
            _ strays: StrayPolicy, features: UserfaultFD.Features = [], modes: UserfaultFD.RegisterModes = .missing,
            isThere: Bool = false, report: (@Sendable (PagerReport) -> Void)? = nil
        ) throws {
            alarm(60)
            let uffd = try UserfaultFD(features: features.union(.sigbus))
            let second = try uffd.duplicate()
            let mapping = try Mapping(anonymous: 4 * pageBytes, options: isThere ? .populate : [])
            _ = try second.register(mapping.range, modes: modes)
            let pager = try Pager(
                uffd, source: NumberedSource(), configuration: PagerConfiguration(strays: strays, report: report))
            try pager.start()
            self.pager = pager
            self.second = second
            self.mapping = mapping
        }
    }

    @Test
    func strayPagesMayBeZeros() async {
        await #expect(processExitsWith: .success) {
            let ground = try Ground(.zeros)
            let range = ground.range
            #expect((0..<4).allSatisfy { range.loadWord($0 * pageBytes) == 0 })
            range.store(7, at: pageBytes)
            #expect(range.load(pageBytes) == 7)
            #expect(ground.pager.statistics.strayFaults == 4)
            // From now on it is a region's.
            try ground.mapping.advise(.dontNeed)
            try ground.pager.add(range, options: RegionOptions(registration: .byOwner))
            #expect(range.loadWord(2 * pageBytes) == NumberedSource.word(2 * pageBytes))
        }
    }

    /// A thread that waits for the end of a pause faults again and again.
    @Test
    func aStrayOfAPauseIsCountedOnce() async {
        await #expect(processExitsWith: .success) {
            let ground = try Ground(.zeros)
            let range = ground.range
            let thread = Shared(Atomic<Int>(0))
            try ground.pager.pause()
            let toucher = Toucher {
                thread.value.store(Int(NativeThread.currentID), ordering: .relaxed)
                return range.loadWord(0)
            }
            func sleeps() -> Int {
                ProcFile.text("/proc/self/task/\(thread.value.load(ordering: .relaxed))/status")
                    .flatMap { ProcFile.value(of: "voluntary_ctxt_switches:", in: $0) }
                    .flatMap { Int($0) } ?? 0
            }
            guard wait(until: { thread.value.load(ordering: .relaxed) != 0 }) else { exit(2) }
            let before = sleeps()
            guard wait(until: { sleeps() > before + 4 }) else { exit(3) }
            try ground.pager.resume()
            guard toucher.value() == 0 else { exit(4) }
            guard ground.pager.statistics.strayFaults == 1 else { exit(5) }
        }
    }

    /// Part of a huge page is nobody's, as far as the kernel says.
    @Test(.requiresHugePages(2), arguments: [false, true])
    func strayHugePagesAreDecided(isLost: Bool) async {
        await #expect(processExitsWith: isLost ? .signal(SIGBUS) : .success) { [isLost] in
            alarm(60)
            let size = PageSize.twoMiB.bytes
            let uffd = try UserfaultFD(features: .sigbus)
            let second = try uffd.duplicate()
            let range = try Mapping(anonymous: 2 * size, hugePages: .twoMiB).release()
            _ = try second.register(range, modes: .missing)
            let pager = try Pager(
                uffd, source: NumberedSource(),
                configuration: PagerConfiguration(strays: isLost ? .poison : .zeros))
            try pager.start()
            guard range.loadWord(size + pageBytes) == 0, range.loadWord(2 * size - pageBytes) == 0 else { exit(2) }
            guard pager.statistics.strayFaults == 1 else { exit(3) }
            extendLifetime(second)
        }
    }

    /// The program's own handler gets the signal, and the pager says so.
    @Test
    func strayPagesArePoisoned() async {
        await #expect(processExitsWith: .success) {
            LastSignal.noteFaults()
            let reports = Reports()
            let ground = try Ground(.poison, report: { reports.add($0) })
            let page = ground.range.start + UInt(2 * pageBytes)
            #expect(ground.range.loadWord(2 * pageBytes) == 0)
            #expect(LastSignal.count == 1)
            #expect(LastSignal.address / UInt(pageBytes) == page / UInt(pageBytes))
            #expect(reports.waitFor(.failed(address: page)))
            try ground.pager.setStrayPolicy(.zeros)
            #expect(ground.range.loadWord(3 * pageBytes) == 0)
            #expect(LastSignal.count == 1)
        }
    }

    @Test
    func aStrayEndsItsProcess() async {
        await #expect(processExitsWith: .signal(SIGKILL)) {
            let ground = try Ground(.killOwner)
            _ = ground.range.loadWord(0)
        }
    }

    /// A write to a protected page has a page: there is nothing to decide.
    @Test(arguments: [true, false])
    func aProtectedStrayIsWritten(poisons: Bool) async {
        await #expect(processExitsWith: .success) { [poisons] in
            let ground = try Ground(
                poisons ? .poison : .zeros, features: .writeProtect, modes: [.missing, .writeProtect], isThere: true)
            for round in 1...3 {
                try ground.second.writeProtect(ground.range, .protect)
                for page in 0..<4 {
                    // Twice the same address, with nothing between.
                    for turn in 0..<2 {
                        ground.range.store(UInt8(10 * round + turn), at: page * pageBytes)
                        #expect(ground.range.load(page * pageBytes) == UInt8(10 * round + turn))
                        try ground.second.writeProtect(ground.range, .protect)
                    }
                }
            }
        }
    }

    /// Past the end of a file that was cut nothing can be filled or poisoned: the program's own handling gets the signal.
    @Test(arguments: [true, false])
    func aStrayPastTheEndOfItsFileIsTheProgramsToHandle(poisons: Bool) async {
        await #expect(processExitsWith: .success) { [poisons] in
            LastSignal.noteFaults()
            alarm(20)
            let uffd = try UserfaultFD(features: .sigbus)
            let second = try uffd.duplicate()
            let file = try Memfd(count: 4 * pageBytes)
            let range = try Mapping(file).release()
            _ = try second.register(range, modes: .missing)
            let pager = try Pager(
                uffd, source: NumberedSource(), configuration: PagerConfiguration(strays: poisons ? .poison : .zeros))
            try pager.start()
            try file.resize(to: pageBytes)
            _ = range.loadWord(2 * pageBytes)
            #expect(LastSignal.count == 1 && LastSignal.address == range.start + UInt(2 * pageBytes))
            try pager.stop(.poison)
        }
    }

    /// Memory that is registered for write protection alone stays so.
    @Test
    func askingWhoseAStrayIsChangesNothing() async {
        await #expect(processExitsWith: .success) {
            let ground = try Ground(.zeros, features: .writeProtect, modes: .writeProtect, isThere: true)
            for round in 1...3 {
                try ground.second.writeProtect(ground.range, .protect)
                for page in 0..<2 { ground.range.store(UInt8(round), at: page * pageBytes) }
            }
            try ground.mapping.advise(.dontNeed)
            // A missing page is the kernel's to make zeros of.
            let before = ground.pager.statistics.strayFaults
            #expect((0..<4).allSatisfy { ground.range.load($0 * pageBytes) == 0 })
            #expect(ground.pager.statistics.strayFaults == before)
        }
    }

    @Test
    func whatAHandlerCannotDoIsRefused() throws {
        func isRefused(_ call: () throws -> Void) -> Bool {
            do {
                try call()
            } catch PagerError.configuration(StrayPolicy.refusalInThread) {
                return true
            } catch {}
            return false
        }
        for policy in [StrayPolicy.wait, .ask { _ in .zeros }] {
            #expect(
                isRefused {
                    _ = try Pager(
                        UserfaultFD(features: .sigbus), source: ZeroSource(),
                        configuration: PagerConfiguration(strays: policy))
                })
            let pager = try Pager(UserfaultFD(features: .sigbus), source: ZeroSource())
            #expect(isRefused { try pager.setStrayPolicy(policy) })
            try pager.setStrayPolicy(.zeros)
        }
    }
}
