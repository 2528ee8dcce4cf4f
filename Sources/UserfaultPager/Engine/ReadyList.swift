internal import CUserfaultFD

/// Room for what `epoll_wait(2)` answers.
@safe
struct ReadyList: ~Copyable {
    private static var capacity: Int { 64 }
    private let tokens: UnsafeMutablePointer<UInt64>
    private let events: UnsafeMutablePointer<UInt32>

    init() {
        unsafe tokens = .allocate(capacity: Self.capacity)
        unsafe tokens.initialize(repeating: 0, count: Self.capacity)
        unsafe events = .allocate(capacity: Self.capacity)
        unsafe events.initialize(repeating: 0, count: Self.capacity)
    }

    deinit {
        unsafe tokens.deallocate()
        unsafe events.deallocate()
    }

    /// Waits, and answers how many descriptors are ready.
    func wait(_ epoll: CInt, _ milliseconds: CInt) -> Int {
        unsafe Int(cuffd_epoll_wait(epoll, tokens, events, CInt(Self.capacity), milliseconds))
    }

    /// Which descriptor is ready.
    func token(_ index: Int) -> UInt64 { unsafe tokens[index] }
}
