package import CSelftestSupport
import Synchronization
package import UserfaultFD

/// One access to memory by a thread of its own, which waits where the memory makes it wait.
package final class Touch: Sendable {
    /// What came of the access.
    package enum Outcome: Equatable, Sendable {
        /// The byte that was read, or that was written.
        case byte(UInt8)
        /// The signal that the access raised.
        case signal(css_fault)

        /// The signal's number, `nil` for an access that went through.
        package var signal: Int32? {
            if case .signal(let fault) = self { fault.signal } else { nil }
        }

        package static func == (lhs: Outcome, rhs: Outcome) -> Bool {
            switch (lhs, rhs) {
            case (.byte(let left), .byte(let right)): left == right
            case (.signal(let left), .signal(let right)): left.signal == right.signal && left.code == right.code
            default: false
            }
        }
    }

    package let thread: TestThread
    private let outcome: Shared

    private final class Shared: Sendable {
        let value = Mutex<Outcome?>(nil)
    }

    private init(_ access: @escaping @Sendable () -> Outcome) throws {
        let outcome = Shared()
        self.outcome = outcome
        thread = try TestThread("toucher") {
            let result = access()
            outcome.value.withLock { $0 = result }
        }
    }

    /// Reads a byte.
    package static func read(_ address: UInt) throws -> Touch {
        try Touch { load(address) }
    }

    /// Writes a byte.
    package static func write(_ address: UInt, _ byte: UInt8) throws -> Touch {
        try Touch { store(address, byte) }
    }

    /// What a thread can be made to wait for before its access.
    package final class Gate: Sendable {
        private let isOpen = Atomic<Bool>(false)

        package init() {}

        package func open() { isOpen.store(true, ordering: .releasing) }

        package func pass() {
            while !isOpen.load(ordering: .acquiring) { Threads.pause() }
        }
    }

    /// Writes a byte once a gate is open.
    package static func write(_ address: UInt, _ byte: UInt8, after gate: Gate) throws -> Touch {
        try Touch {
            gate.pass()
            return store(address, byte)
        }
    }

    /// Waits for the access to end, and answers what came of it.
    @discardableResult
    package func finish(
        _ what: String = "the access goes on", file: String = #fileID, line: Int = #line
    ) throws -> Outcome {
        var looks = 0
        try Waiting.until(what, file: file, line: line) {
            looks += 1
            // An access that faults without end is known for what it is long before patience is at its end.
            if looks % 32 == 0 {
                let faults = thread.faults
                try expect(
                    faults < Self.endless, what, seen: "the access has faulted \(faults) times, and faults again",
                    file: file, line: line)
            }
            return thread.isFinished
        }
        return outcome.value.withLock { $0 }!
    }

    /// More faults than any access takes that goes through in the end.
    private static let endless = 20_000

    /// Waits for the access to end, and fails unless it read or wrote this byte.
    package func finish(
        with byte: UInt8, _ what: String = "the access goes on", file: String = #fileID, line: Int = #line
    ) throws {
        try expectEqual(
            try finish(what, file: file, line: line), .byte(byte), "outcome of the access", file: file, line: line)
    }

    /// Fails if the access goes on, or was woken: a thread that wakes and has to wait again makes a message anew.
    package func expectStillWaiting(
        _ uffd: borrowing UserfaultFD, _ why: String, file: String = #fileID, line: Int = #line
    ) throws {
        try thread.expectStillAsleep(why, file: file, line: line)
        try uffd.expectNoMessage(why, file: file, line: line)
    }

    package var isFinished: Bool { thread.isFinished }

    // MARK: Accesses of the calling thread, for memory that cannot block it

    /// Reads a byte, and survives a signal.
    package static func load(_ address: UInt) -> Outcome {
        var byte: UInt8 = 0
        var fault = css_fault()
        return css_load8(address, &byte, &fault) ? .byte(byte) : .signal(fault)
    }

    /// Writes a byte, and survives a signal.
    @discardableResult
    package static func store(_ address: UInt, _ byte: UInt8) -> Outcome {
        var fault = css_fault()
        return css_store8(address, byte, &fault) ? .byte(byte) : .signal(fault)
    }
}
