import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

/// The order between what is looked up and what changes.
@Suite(.serialized, .timeLimit(.minutes(1)))
struct OrderTests {
    /// Who takes the order alone again and again keeps nobody out for as long.
    @Test func whoWaitsForTheOrderComesBetween() throws {
        let memory = try ServedMemory(UserfaultFD())
        let isComing = Shared(Atomic(false))
        let hasBeenIn = Shared(Atomic(false))
        for _ in 0..<100 {
            isComing.value.store(false, ordering: .sequentiallyConsistent)
            hasBeenIn.value.store(false, ordering: .sequentiallyConsistent)
            let reader = memory.excludingOthers { _, _ in
                let reader = Toucher {
                    isComing.value.store(true, ordering: .sequentiallyConsistent)
                    memory.sharingOrder { _, _ in hasBeenIn.value.store(true, ordering: .sequentiallyConsistent) }
                }
                let waits = wait {
                    isComing.value.load(ordering: .sequentiallyConsistent)
                        && Footprint.sleepingThreads(named: "toucher") == 1
                }
                #expect(waits)
                return reader
            }
            memory.excludingOthers(isRepeated: true) { _, _ in
                let isRight = hasBeenIn.value.load(ordering: .sequentiallyConsistent)
                #expect(isRight)
            }
            #expect(reader.join())
        }
    }
}
