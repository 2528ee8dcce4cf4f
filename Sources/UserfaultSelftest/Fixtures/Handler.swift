import Synchronization
package import UserfaultFD

/// A thread that reads a userfaultfd's messages and gives each to a closure, until it is stopped.
///
/// The counts are what upstream's monitor counts. What the closure throws is thrown by `stop`.
package final class Handler: Sendable {
    /// A descriptor that several threads use: a class, because closures share it.
    package final class Descriptor: Sendable {
        package let uffd: UserfaultFD
        package init(_ uffd: consuming UserfaultFD) { self.uffd = uffd }
    }

    /// How many faults of each kind were handled.
    package struct Counts: Equatable, Sendable {
        package var missing = 0
        package var minor = 0
        package var writeProtect = 0
        package var readWriteProtect = 0
        package var events = 0

        package mutating func add(_ kind: PageFault.Kind) {
            switch kind {
            case .missing: missing += 1
            case .minor: minor += 1
            case .writeProtect: writeProtect += 1
            case .readWriteProtect: readWriteProtect += 1
            }
        }
    }

    private final class State: Sendable {
        let counts = Mutex(Counts())
        let failure = Mutex<(any Error)?>(nil)
        let isStopped = Atomic<Bool>(false)
    }

    private let state: State
    private let thread: TestThread

    /// Starts handling.
    ///
    /// - Parameters:
    ///   - onFault: Resolves a page fault.
    ///   - onEvent: Takes any other event; without it such an event is a failure.
    package init(
        _ descriptor: Descriptor,
        onEvent: (@Sendable (consuming Event) throws -> Void)? = nil,
        onFault: @escaping @Sendable (PageFault) throws -> Void
    ) throws {
        let state = State()
        self.state = state
        thread = try TestThread("handler") {
            do {
                try Self.run(descriptor, state, onEvent, onFault)
            } catch {
                state.failure.withLock { $0 = error }
            }
        }
    }

    private static func run(
        _ descriptor: Descriptor, _ state: State,
        _ onEvent: (@Sendable (consuming Event) throws -> Void)?, _ onFault: (PageFault) throws -> Void
    ) throws {
        var batch = EventBatch(capacity: 16)
        while !state.isStopped.load(ordering: .acquiring) {
            // Short, so that stopping needs no message.
            guard try descriptor.uffd.poll(timeout: .milliseconds(10)) else { continue }
            try descriptor.uffd.read(into: &batch)
            while let event = batch.next() {
                switch consume event {
                case .pagefault(let fault):
                    try onFault(fault)
                    state.counts.withLock { $0.add(fault.kind) }
                case let other:
                    guard let onEvent else { throw CaseFailure(expected: "page faults only", seen: "another event") }
                    state.counts.withLock { $0.events += 1 }
                    try onEvent(other)
                }
            }
        }
    }

    package var counts: Counts { state.counts.withLock { $0 } }

    /// Stops handling; answers the counts, or throws what went wrong.
    @discardableResult
    package func stop(file: String = #fileID, line: Int = #line) throws -> Counts {
        state.isStopped.store(true, ordering: .releasing)
        try thread.join("the handler stops", file: file, line: line)
        if let failure = state.failure.withLock({ $0 }) { throw failure }
        return counts
    }
}
