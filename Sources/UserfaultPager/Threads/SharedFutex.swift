internal import UserfaultFD

// Any thread signals and waits.

/// A word to wait for that several objects share.
final class SharedFutex: Sendable {
    private let word = FutexWord()

    /// The number of signals so far, to be given to ``wait(while:until:)``.
    var signals: UInt32 { word.changes }

    func signal(waking count: Int32 = .max) { word.signal(waking: count) }

    func wait(while signals: UInt32, until deadline: Deadline) { word.wait(while: signals, until: deadline) }
}
