import CSelftestSupport
import Glibc
import Synchronization
import UserfaultFD

/// How much slower this host is than an ordinary one at what the cases do most: one thread lets another go on.
///
/// Every wait of the suite grows with it. Emulated machines are slow, and so are machines whose processors take turns.
/// ``TestThread`` and ``Waiting`` are not used here: they wait, and to know how long is why this is measured.
package enum Slowness {
    /// 1 on an ordinary host, loaded or not; never less, and at most ``most``.
    package static let measured = getenv(variable).flatMap { Double(String(cString: $0)) } ?? measure()

    /// The environment variable by which the runner tells a result's process what the run has measured.
    static let variable = "UFFD_SELFTEST_SLOWNESS"

    /// A time that is enough on an ordinary host, made enough for this one.
    package static func stretched(_ time: Duration) -> Duration { time * measured }

    /// What is slower than this has come to a stop.
    private static let most = 24.0
    /// A turn that is handed over by threads which do not sleep.
    private static let ordinaryTurn = Duration.milliseconds(2)
    /// A page fault that another thread resolves.
    private static let ordinaryFault = Duration.microseconds(500)
    /// How long each measurement may take.
    private static let patience = Duration.milliseconds(300)

    private static func measure() -> Double {
        let ratios = [average(of: turns) / ordinaryTurn, average(of: faults) / ordinaryFault]
        return ratios.reduce(1) { min(most, max($0, $1)) }
    }

    /// How long one of the steps takes that `run` counts until the deadline.
    private static func average(of run: (ContinuousClock.Instant) -> Int) -> Duration {
        let start = ContinuousClock.now
        let count = run(start + patience)
        return (ContinuousClock.now - start) / max(1, count)
    }

    /// Two threads that let each other go on by a word in memory.
    private static func turns(until deadline: ContinuousClock.Instant) -> Int {
        let most = 64
        let shared = Shared()
        let answer = Threads.start("speed") {
            for turn in 0..<most {
                while shared.word.load(ordering: .acquiring) != 2 * turn + 1 {
                    guard ContinuousClock.now < deadline else { return }
                    NativeThread.yield()
                }
                shared.word.store(2 * turn + 2, ordering: .releasing)
            }
        }
        guard answer == 0 else { return most }
        for turn in 0..<most {
            shared.word.store(2 * turn + 1, ordering: .releasing)
            while shared.word.load(ordering: .acquiring) != 2 * turn + 2 {
                guard ContinuousClock.now < deadline else { return turn }
                NativeThread.yield()
            }
        }
        return most
    }

    /// A thread that touches pages, each filled by this one.
    private static func faults(until deadline: ContinuousClock.Instant) -> Int {
        let most = 32
        // What the kernel refuses here says nothing of its speed.
        guard let memory = try? Mapping(anonymous: most * PageSize.base.bytes).release(), let uffd = try? UserfaultFD(),
            (try? uffd.register(memory, modes: .missing)) != nil
        else { return most }
        let page: @Sendable (Int) -> AddressRange = {
            memory.part(at: $0 * PageSize.base.bytes, count: PageSize.base.bytes)
        }
        let answer = Threads.start("speed") {
            var byte: UInt8 = 0
            for index in 0..<most { css_load8(page(index).start, &byte, nil) }
        }
        guard answer == 0 else { return most }
        var batch = EventBatch(capacity: 1)
        for index in 0..<most {
            while (try? uffd.poll(timeout: .milliseconds(100))) == false {
                guard ContinuousClock.now < deadline else { return index }
            }
            guard (try? uffd.read(into: &batch)) != nil, (try? uffd.zeropage(page(index))) != nil else { return most }
        }
        return most
    }

    private final class Shared: Sendable {
        let word = Atomic<Int>(0)
    }
}
