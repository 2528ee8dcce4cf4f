import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite(.timeLimit(.minutes(5)))
struct FaultRingTests {
    /// A fault all of whose words follow from one number.
    private static func fault(_ seed: UInt64) -> TracedFault {
        TracedFault(
            number: 0, time: seed,
            fault: PageFault(
                address: UInt(seed &* 3), flags: PageFault.Flags(rawValue: seed & 7),
                threadID: UInt32(truncatingIfNeeded: seed)),
            regionID: Int(seed & 0xffff) + 1, ending: .filled, earlierAttempts: Int(seed & 0xff), load: seed &* 5,
            fill: seed &* 7, service: seed &* 11)
    }

    private static func isWhole(_ fault: TracedFault) -> Bool {
        let right = Self.fault(fault.time)
        return fault.fault == right.fault && fault.regionID == right.regionID && fault.load == right.load
            && fault.fill == right.fill && fault.service == right.service
            && fault.earlierAttempts == right.earlierAttempts
    }

    @Test
    func theLastFaultsAreKept() throws {
        let ring = try FaultRing(capacity: 4)
        #expect(ring.faults(after: 0).isEmpty)
        for seed in 1...6 { ring.put(Self.fault(UInt64(seed))) }
        #expect(ring.faults(after: 0).map(\.number) == [3, 4, 5, 6])
        #expect(ring.faults(after: 4).map(\.time) == [5, 6])
        #expect(ring.faults(after: 6).isEmpty)
        #expect(ring.faults(after: 0).allSatisfy(Self.isWhole))
    }

    @Test
    func aRingThatIsOffKeepsNothing() throws {
        let ring = try FaultRing(capacity: 0)
        let isOn = ring.isOn
        #expect(!isOn)
        ring.put(Self.fault(1))
        #expect(ring.faults(after: 0).isEmpty)
    }

    /// Writers overtake each other and the reader all the time.
    @Test
    func nothingTornIsRead() throws {
        let ring = Shared(try FaultRing(capacity: 3))
        let isRead = Shared(Atomic(false))
        let writers = (1...3).map { writer in
            Toucher {
                var step = 0
                while !isRead.value.load(ordering: .acquiring) {
                    ring.value.put(Self.fault(UInt64(step * 3 + writer)))
                    step += 1
                }
            }
        }
        var seen = 0
        var readings = 0
        let deadline = Deadline(after: .seconds(60))
        while (readings < 20_000 || seen == 0) && !deadline.hasPassed {
            let faults = ring.value.faults(after: 0)
            readings += 1
            seen += faults.count
            #expect(faults.allSatisfy(Self.isWhole))
            #expect(faults.map(\.number) == faults.map(\.number).sorted())
        }
        isRead.value.store(true, ordering: .releasing)
        for writer in writers { #expect(writer.join()) }
        #expect(seen > 0)
        #expect(ring.value.faults(after: 0).allSatisfy(Self.isWhole))
    }
}
