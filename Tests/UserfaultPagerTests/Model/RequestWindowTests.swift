import Synchronization
import Testing
import UserfaultFD

@testable import UserfaultPager

@Suite
struct RequestWindowTests {
    /// Makes requests until there are enough.
    private func fill(_ window: RequestWindow) -> Int {
        var count = 0
        while window.enter() {
            window.begin(isDemand: false)
            _ = window.leave()
            count += 1
        }
        return count
    }

    @Test func thereAreFewWhileAThreadWaits() {
        let window = RequestWindow(most: 64)
        #expect(fill(window) == 64)
        window.begin(isDemand: true)
        // Each loader that was refused is told once.
        let told = (0..<64).count { _ in window.end(isDemand: false) }
        #expect(told == 1)
        #expect(fill(window) == 4)
        #expect(!window.end(isDemand: true))
        // One more for each that is settled while none waits.
        for open in 5...64 {
            _ = window.end(isDemand: false)
            #expect(fill(window) == 2)
            #expect(!window.enter(), "\(open) are open")
        }
        _ = window.end(isDemand: false)
        #expect(fill(window) == 1)
    }

    /// Who completes requests asks for more when an eighth is missing, and when there are few at once.
    @Test func thereIsRoomForSeveral() {
        let window = RequestWindow(most: 64)
        #expect(fill(window) == 64)
        #expect(window.room == 0)
        for missing in 1...8 {
            #expect(window.room == 0, "\(missing - 1) are missing")
            _ = window.end(isDemand: false)
        }
        #expect(window.room == 8)
        window.begin(isDemand: true)
        #expect(window.room == 0)
        for _ in 0..<53 { _ = window.end(isDemand: false) }
        #expect(window.room == 1)
    }

    @Test func oneIsAlwaysAllowed() {
        let window = RequestWindow(most: 1)
        window.begin(isDemand: true)
        #expect(fill(window) == 1)
        #expect(window.end(isDemand: false))
        #expect(fill(window) == 1)
    }

    /// Threads that sleep when they are refused: none is forgotten.
    @Test func whoIsRefusedIsTold() {
        let window = RequestWindow(most: 3)
        let signals = SharedFutex()
        let left = Atomic<Int>(20_000)
        let threads = (0..<4).map { _ in
            Toucher {
                while left.load(ordering: .acquiring) > 0 {
                    let seen = signals.signals
                    guard window.enter() else {
                        let before = left.load(ordering: .acquiring)
                        signals.wait(while: seen, until: Deadline(after: .seconds(10)))
                        // Nobody sleeps to the end while others work, or after them.
                        if left.load(ordering: .acquiring) == before, signals.signals == seen { return false }
                        continue
                    }
                    left.subtract(1, ordering: .acquiringAndReleasing)
                    if window.leave() { signals.signal(waking: 1) }
                }
                signals.signal()
                return true
            }
        }
        for thread in threads { #expect(thread.value() == true) }
    }
}
