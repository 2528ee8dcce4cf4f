internal import CUserfaultFD
public import UserfaultFD

/// What stands by while another process serves a third one's memory.
///
/// When a pager's process dies, its descriptor closes, and its clients would read **zeros** in place of pages that were
/// not loaded. A guardian is a process of its own that holds a duplicate of the descriptor, so that the clients wait
/// instead, and kills the client before it lets go.
///
/// ```swift
/// let guardian = Guardian(of: try uffd.duplicate(), owner: client, pager: server)
/// guardian.stand()
/// ```
public struct Guardian: ~Copyable, Sendable {
    private let uffd: UserfaultFD
    private let owner: Owner
    private let pager: Owner

    /// How a watch ended.
    public enum End: Hashable, Sendable {
        /// The client's process has ended by itself.
        case ownerEnded
        /// The pager's process has died, and the client was killed.
        case ownerKilled
    }

    /// A guardian that is to stand.
    ///
    /// - Parameters:
    ///   - uffd: A duplicate of the descriptor that the pager serves.
    ///   - owner: The process whose memory it is.
    ///   - pager: The process that serves it.
    public init(of uffd: consuming UserfaultFD, owner: Owner, pager: Owner) {
        self.uffd = uffd
        self.owner = owner
        self.pager = pager
    }

    /// Waits until one of the two processes ends, and does not let the client see zeros.
    ///
    /// Blocks its thread.
    public func stand() -> End {
        while true {
            var ready = InlineArray<2, CShort>(repeating: 0)
            var span = ready.mutableSpan
            _ = unsafe span.withUnsafeMutableBufferPointer { ready in
                unsafe cuffd_poll2(owner.pidfd, pager.pidfd, CUFFD_POLLIN, -1, ready.baseAddress)
            }
            if ready[0] != 0 { return .ownerEnded }
            guard ready[1] != 0 else { continue }
            owner.kill()
            // The descriptor goes with this value: not before the process is gone.
            while cuffd_poll(owner.pidfd, CUFFD_POLLIN, -1) <= 0 {}
            return .ownerKilled
        }
    }
}
