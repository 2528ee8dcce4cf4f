internal import Synchronization
internal import SystemPackage
internal import UserfaultFD
internal import UserfaultPager

/// Descriptors that are given up when no other is free, so that a peer can be ended that would wait for ever.
final class DescriptorReserve: Sendable {
    private final class Spare: Sendable {
        /// A file of its own, since the limit may be the system's.
        private let file: EventFD

        init() throws(UserfaultError) { file = try EventFD() }
    }

    private let spares = Mutex<[Spare]>([])
    /// For a connection and its peer's process.
    private static var count: Int { 2 }

    init() { refill() }

    /// Takes descriptors back, as far as they are free.
    func refill() {
        spares.withLock { spares in
            while spares.count < Self.count, let spare = try? Spare() { spares.append(spare) }
        }
    }

    /// Calls the body again while it fails because no descriptor is free.
    func retrying<Result: ~Copyable>(
        until deadline: Deadline, _ body: () throws(HandoffError) -> Result
    ) throws(HandoffError) -> Result {
        while true {
            do throws(HandoffError) {
                return try body()
            } catch {
                guard error.isForWantOfDescriptors else { throw error }
                let isGivenUp = spares.withLock { $0.popLast() != nil }
                if isGivenUp { continue }
                guard !deadline.hasPassed else { throw error }
                // Nothing tells when another thread closes one.
                let word = FutexWord()
                word.wait(while: word.changes, until: Deadline(after: .milliseconds(10)))
            }
        }
    }
}

extension HandoffError {
    private var errno: Errno? {
        switch self {
        case .kernel(let error), .pager(.kernel(let error)): error.errno
        default: nil
        }
    }

    var isForWantOfDescriptors: Bool { errno == .tooManyOpenFiles || errno == .tooManyOpenFilesInSystem }

    /// What opening a peer's process fails with then.
    var saysThatProcessHasEnded: Bool { errno == .noSuchProcess || errno == .invalidArgument }
}
