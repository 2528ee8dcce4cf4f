internal import CUserfaultFD

/// Room for messages, allocated once, that ``UserfaultFD/read(into:)`` fills with as many as there are.
///
/// Reading and taking events allocates nothing. The descriptors of fork events that you do not take are closed when the
/// batch is filled again or destroyed.
@safe
public struct EventBatch: ~Copyable, @unchecked Sendable {
    private let messages: UnsafeMutableBufferPointer<cuffd_msg>
    private var cursor = 0

    /// The messages that the last read brought.
    public private(set) var count = 0

    /// Whether the room is the batch's own.
    private let ownsMemory: Bool

    /// What a fork event's descriptor inherits.
    private var inheritance = Inheritance()

    struct Inheritance {
        var enabled: UserfaultFD.Features = []
        var supported: UserfaultFD.Features = []
        var handlesKernelFaults = false
    }

    /// An empty batch.
    ///
    /// - Parameter capacity: The most messages that one read takes. A message is 32 bytes.
    /// - Precondition: `capacity` is at least 1.
    public init(capacity: Int = 64) {
        precondition(capacity > 0, "a batch needs room for at least one message")
        unsafe messages = .allocate(capacity: capacity)
        unsafe messages.initialize(repeating: cuffd_msg())
        ownsMemory = true
    }

    /// A batch in memory that outlives it: what was read is found there by ``recover()``.
    ///
    /// - Parameters:
    ///   - storage: Room for `capacity` messages, as long as the batch is used.
    ///   - capacity: The most messages that one read takes.
    @unsafe
    package init(storage: UnsafeMutableRawPointer, capacity: Int) {
        unsafe messages = UnsafeMutableBufferPointer(
            start: storage.bindMemory(to: cuffd_msg.self, capacity: capacity), count: capacity)
        ownsMemory = false
    }

    deinit {
        // Memory that outlives the batch may be gone, and what is there is for who recovers it.
        guard ownsMemory else { return }
        closeForksFromCursor()
        unsafe messages.deallocate()
    }

    /// Forgets all messages, in the memory too.
    package mutating func erase() {
        closeForksFromCursor()
        cursor = 0
        count = 0
        for index in 0..<capacity { unsafe messages[index].event = 0 }
    }

    /// Takes up the messages that a read has left in the memory since it was erased.
    ///
    /// - Returns: `false`, and takes none, if one cannot be the kernel's, or is a fork: its descriptor was the other process'.
    package mutating func recover() -> Bool {
        cursor = 0
        count = 0
        let found = unsafe messages.firstIndex { $0.event == 0 } ?? messages.count
        guard unsafe messages[..<found].allSatisfy({ Self.canBeRecovered($0) }) else { return false }
        count = found
        return true
    }

    private static func canBeRecovered(_ message: cuffd_msg) -> Bool {
        func areWholePages(_ start: UInt64, _ bytes: UInt64) -> Bool {
            let (end, wraps) = start.addingReportingOverflow(bytes)
            return !wraps && end <= UInt64(Int.max) && (start | bytes) & UInt64(PageSize.base.bytes - 1) == 0
        }
        switch UInt64(message.event) {
        case CUFFD_EVENT_FORK: return false
        case CUFFD_EVENT_REMAP:
            let remap = unsafe message.arg.remap
            return areWholePages(remap.from, remap.len) && areWholePages(remap.to, remap.len)
        case CUFFD_EVENT_REMOVE, CUFFD_EVENT_UNMAP:
            let range = unsafe message.arg.remove
            return range.start <= range.end && areWholePages(range.start, range.end - range.start)
        default: return true
        }
    }

    /// Takes the messages of another batch, without fork events, of which there can only be one owner.
    package mutating func copyMessages(of other: borrowing EventBatch) {
        precondition(other.count <= capacity, "there is no room for the messages of the other batch")
        closeForksFromCursor()
        for index in 0..<other.count { unsafe messages[index] = other.messages[index] }
        cursor = 0
        count = other.count
        inheritance = other.inheritance
    }

    /// The most messages that one read takes.
    public var capacity: Int { unsafe messages.count }

    /// Whether every event was taken.
    public var isEmpty: Bool { cursor == count }

    /// Takes the next event, or returns `nil` if none is left.
    public mutating func next() -> Event? {
        guard cursor < count else { return nil }
        let message = unsafe messages[cursor]
        cursor += 1
        return event(message)
    }

    /// Takes the next event if it is a page fault; anything else stays.
    ///
    /// The way to look at faults alone without making an ``Event`` of each.
    @inline(__always)
    public mutating func nextPageFault() -> PageFault? {
        guard cursor < count, unsafe messages[cursor].event == UInt8(truncatingIfNeeded: CUFFD_EVENT_PAGEFAULT) else {
            return nil
        }
        let message = unsafe messages[cursor]
        cursor += 1
        return pageFault(message)
    }

    /// Forgets what is left, and lets a reader fill the batch again.
    ///
    /// - Parameter fill: Returns the number of bytes it wrote, or `-errno`.
    mutating func refill(
        inheriting: Inheritance, _ fill: (UnsafeMutableBufferPointer<cuffd_msg>) -> Int
    ) -> Int {
        closeForksFromCursor()
        cursor = 0
        count = 0
        inheritance = inheriting
        let bytes = unsafe fill(messages)
        if bytes > 0 { count = bytes / MemoryLayout<cuffd_msg>.size }
        return bytes
    }

    private func event(_ message: cuffd_msg) -> Event {
        switch UInt64(message.event) {
        case CUFFD_EVENT_PAGEFAULT:
            return .pagefault(pageFault(message))
        case CUFFD_EVENT_FORK:
            // A message whose descriptor cannot be one owns nothing, so there is nothing to close.
            guard let child = unsafe CInt(exactly: message.arg.fork.ufd) else { return unknown(message) }
            return .fork(
                UserfaultFD(
                    descriptor: OwnedDescriptor(adopting: child),
                    enabled: inheritance.enabled, supported: inheritance.supported, isNegotiated: true,
                    handlesKernelFaults: inheritance.handlesKernelFaults))
        case CUFFD_EVENT_REMAP:
            let remap = unsafe message.arg.remap
            return .remap(from: UInt(remap.from), to: UInt(remap.to), count: Int(clamping: remap.len))
        case CUFFD_EVENT_REMOVE:
            return .remove(range(message))
        case CUFFD_EVENT_UNMAP:
            return .unmap(range(message))
        default:
            return unknown(message)
        }
    }

    private func unknown(_ message: cuffd_msg) -> Event {
        let words = unsafe message.arg.words
        return .unknown(UnknownEvent(number: message.event, words: [words.0, words.1, words.2]))
    }

    private func pageFault(_ message: cuffd_msg) -> PageFault {
        let fault = unsafe message.arg.pagefault
        return PageFault(
            address: UInt(fault.address), flags: PageFault.Flags(rawValue: fault.flags), threadID: fault.ptid)
    }

    private func range(_ message: cuffd_msg) -> AddressRange {
        let range = unsafe message.arg.remove
        return AddressRange(start: UInt(range.start), end: UInt(range.end))
    }

    private func closeForksFromCursor() {
        var index = cursor
        while index < count {
            let message = unsafe messages[index]
            index += 1
            if UInt64(message.event) == CUFFD_EVENT_FORK { _ = event(message) }
        }
    }
}
