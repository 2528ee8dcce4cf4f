internal import UserfaultFD

/// What happens to a page that its source could not deliver.
///
/// None of the ways shows zeros.
public struct FailurePolicy: Hashable, Sendable {
    /// What happens when trying again has not helped.
    public enum Ending: UInt8, Hashable, Sendable {
        /// Whoever touches the page gets `SIGBUS`, in user mode; system calls get `EFAULT`. Needs Linux 6.6: where the
        /// kernel cannot, the owner is killed.
        case poison

        /// The process whose memory it is gets `SIGKILL`.
        case killOwner
    }

    /// How often to ask again.
    public var retries: Int

    /// The time before the first retry; each further one waits twice as long.
    public var backOff: Duration

    /// What happens then.
    public var ending: Ending

    /// What happens to a page that its source could not deliver.
    ///
    /// A region with a negative number is refused, see ``Pager/add(_:offset:options:)``.
    public init(retries: Int = 3, backOff: Duration = .milliseconds(1), ending: Ending = .poison) {
        self.retries = retries
        self.backOff = backOff
        self.ending = ending
    }

    /// Fails at once.
    public static var poisonAtOnce: FailurePolicy { FailurePolicy(retries: 0) }

    /// Fails at once, and takes the owner along.
    public static var killOwnerAtOnce: FailurePolicy { FailurePolicy(retries: 0, ending: .killOwner) }

    /// Finds what no policy can have.
    ///
    /// - Throws: ``PagerError/configuration(_:)``.
    func check() throws(PagerError) {
        guard retries >= 0 else { throw .configuration("a failure policy retries 0 times or more: \(retries)") }
        guard backOff >= .zero else {
            throw .configuration("a failure policy backs off for no less than nothing: \(backOff)")
        }
    }

    /// What to do after a number of attempts that failed.
    enum Verdict: Hashable {
        case retry(afterNanoseconds: UInt64)
        case end(Ending)
    }

    /// - Parameter attempts: How many attempts have failed; at least 1.
    func verdict(afterAttempts attempts: Int) -> Verdict {
        guard attempts <= retries else { return .end(ending) }
        let minute: UInt64 = 60_000_000_000
        return .retry(
            afterNanoseconds: min(minute, min(backOff.wholeNanoseconds, minute) << UInt64(min(attempts - 1, 20))))
    }
}
