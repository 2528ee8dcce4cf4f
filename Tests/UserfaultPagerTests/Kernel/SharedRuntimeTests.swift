import Glibc
import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// What one pager of a runtime goes through is not noticed by the others.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct SharedRuntimeTests {
    typealias Member = RuntimeTests.Member

    /// Threads that drop their memory all the time, each of which waits until its event was read.
    @Test(arguments: [false, true])
    func aFloodOfEventsHoldsUpNoOther(isSlow: Bool) throws {
        let runtime = try PagerRuntime(loaders: 2)
        let flooding = try Member(runtime, pages: 4, isSlow: isSlow, features: .eventRemove)
        let other = try Member(runtime, pages: 512, isSlow: isSlow)
        let range = flooding.mapping.range
        let isOver = Shared(Atomic<Bool>(false))
        let droppers = (0..<4).map { page in
            Toucher {
                let dropped = range.part(at: page * pageBytes, count: pageBytes)
                while !isOver.value.load(ordering: .relaxed) { try? AddressSpace.advise(.dontNeed, dropped) }
            }
        }
        #expect(wait { flooding.pager.statistics.events > 100 })
        #expect(other.isRight)
        let events = flooding.pager.statistics.events
        #expect(wait { flooding.pager.statistics.events > events + 100 })
        isOver.value.store(true, ordering: .relaxed)
        for dropper in droppers { #expect(dropper.join()) }
        #expect(Toucher.value { range.loadWord(0) | range.loadWord(3 * pageBytes) } == 0)
        try runtime.stop(.poison)
    }

    /// A region goes while its source hangs; the pager's other region and another pager are served meanwhile.
    @Test
    func aRegionOfASourceThatHangsIsRemoved() throws {
        let gate = Gate()
        let runtime = try PagerRuntime(loaders: 4)
        let hung = try Member(runtime, isSlow: true) { offset in if offset < 8 * pageBytes { gate.pass() } }
        let second = try Mapping(anonymous: pageBytes)
        try hung.pager.add(second.range, offset: 8 * pageBytes)
        let range = second.range
        try hung.pager.prefetch(hung.region, count: hung.mapping.count)
        #expect(gate.waitUntilReached())
        #expect(throws: PagerError.timedOut(pagesLeft: 8)) {
            try hung.pager.populate(hung.region, within: .milliseconds(10))
        }
        let removing = Toucher { error { () throws(PagerError) in try hung.pager.remove(hung.region, .poison) } }
        let other = try Member(runtime, isSlow: true)
        #expect(other.isRight)
        #expect(Toucher.value { range.loadWord(0) } == NumberedSource.word(8 * pageBytes))
        #expect(removing.value() == .some(nil))
        #expect(hung.pager.statistics.pagesPoisoned == 8)
        gate.open()
        #expect(wait { hung.pager.statistics.outstanding == 0 })
        #expect(hung.pager.statistics.pagesCopied == 1)
        try runtime.stop(.poison)
    }

    /// Whether there is reading that does not wait in blocking mode.
    private static var hasReadingWithoutWaiting: Bool {
        let version = KernelSupport.probe().kernelRelease.split(separator: ".").prefix(2).compactMap { Int($0) }
        return !version.lexicographicallyPrecedes([6, 10])
    }

    /// A client that goes on making its descriptor block holds up nobody.
    @Test(.enabled(if: hasReadingWithoutWaiting, "Linux 6.10 has reading that never waits"), arguments: [false, true])
    func aDescriptorThatIsMadeToBlockHoldsUpNoOther(hasEvents: Bool) async {
        await #expect(processExitsWith: .success) { [hasEvents] in
            let runtime = try PagerRuntime(loaders: 2)
            let hostile = try Member(runtime, pages: 4, features: hasEvents ? .eventRemove : [])
            let other = try Member(runtime, pages: 2048)
            let descriptor = hostile.pager.core.memories[0].rawDescriptor
            let isOver = Shared(Atomic<Bool>(false))
            let blocker = Toucher {
                while !isOver.value.load(ordering: .relaxed) { _ = fcntl(descriptor, F_SETFL, 0) }
            }
            #expect(other.isRight)
            #expect(hostile.isRight)
            isOver.value.store(true, ordering: .relaxed)
            #expect(blocker.join())
            try runtime.stop(.poison)
        }
    }

    /// A pager whose descriptor cannot be waited for serves nobody, and says so.
    @Test
    func whatTheReaderCannotWaitForIsRefused() throws {
        let runtime = try PagerRuntime(loaders: 1)
        let mapping = try Mapping(anonymous: pageBytes)
        let pager = try Pager(UserfaultFD(), source: NumberedSource(), runtime: runtime)
        try pager.add(mapping.range)
        // The kernel takes no descriptor twice.
        try pager.core.reader?.add(pager.core.memories[0])
        #expect(throws: PagerError.noThread(.fileExists)) { try pager.start() }
        #expect(pager.statistics.pagesPoisoned == 1)
        try runtime.stop(.poison)
    }

    /// Only the clock wakes, at its times, while nothing happens.
    @Test
    func idlePagersWakeNobody() async {
        await #expect(processExitsWith: .success) {
            let runtime = try PagerRuntime(loaders: 4)
            let members = try (0..<100).map { _ in try Member(runtime, isSlow: true) }
            for member in members { #expect(member.isRight) }
            // What was served last may still be on its way to sleep.
            let isQuiet = wait {
                let before = Wakes()
                guard wait(until: { Wakes().clock >= before.clock + 20 }) else { return false }
                return Wakes().others == before.others
            }
            #expect(isQuiet)
            try runtime.stop(.poison)
        }
    }

    /// How often the engine's threads went to sleep.
    private struct Wakes {
        var clock = 0
        var others = 0

        init() {
            guard let directory = opendir("/proc/self/task") else { return }
            defer { closedir(directory) }
            while let entry = readdir(directory) {
                let id = withUnsafeBytes(of: &entry.pointee.d_name) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
                guard let status = try? ProcFile.read("/proc/self/task/\(id)/status", for: .openProcess),
                    let name = ProcFile.value(of: "Name:", in: status), name.hasPrefix("uffd-"),
                    let count = ProcFile.value(of: "voluntary_ctxt_switches:", in: status).flatMap({ Int($0) })
                else { continue }
                if name.hasPrefix("uffd-clock") { clock += count } else { others += count }
            }
        }
    }
}
