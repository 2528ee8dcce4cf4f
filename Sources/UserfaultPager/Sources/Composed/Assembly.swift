internal import Synchronization

/// A request whose parts come from several places.
@safe
final class Assembly: @unchecked Sendable {
    private struct State {
        var partsLeft: Int
        /// The first byte that is not there, because its part failed or came short; and whether it is lost for good.
        var firstMissing = Int.max
        var isLost = false
        /// Every part so far is zeros, whole.
        var isZeros = true
    }

    private let original: PageRequest
    /// Each part writes its own bytes; the last one hands all of them over.
    private let buffer: UnsafeMutableRawBufferPointer
    private let state: Mutex<State>

    init(_ request: consuming PageRequest, parts: Int) {
        unsafe buffer = .allocate(byteCount: request.byteCount, alignment: 64)
        state = Mutex(State(partsLeft: parts))
        original = request
    }

    deinit { unsafe buffer.deallocate() }

    /// The request for a part.
    func request(for range: Range<Int>) -> PageRequest {
        let part = AnsweredOnce(isCancelled: { self.original.isCancelled }, { self.settle(range, $0) })
        return PageRequest(part, offset: range.lowerBound, byteCount: range.count, priority: original.priority)
    }

    private func settle(_ range: Range<Int>, _ reply: PageReply?) {
        let start = original.offset
        let room = unsafe UnsafeMutableRawBufferPointer(
            rebasing: buffer[range.lowerBound - start..<range.upperBound - start])
        var pages = unsafe OutputRawSpan(buffer: room, initializedCount: 0)
        let isContent = if let reply { pages.appendContent(of: reply) } else { false }
        let count = unsafe pages.finalize(for: room)
        let end = range.lowerBound + count
        let whole = state.withLock { state -> State? in
            if !isContent || end < range.upperBound, end < state.firstMissing {
                state.firstMissing = end
                state.isLost = reply == .poison
            }
            if case .zeros? = reply {} else { state.isZeros = false }
            state.partsLeft -= 1
            return state.partsLeft == 0 ? state : nil
        }
        guard let whole else { return }
        let there = min(whole.firstMissing - start, original.byteCount)
        if there <= 0 {
            original.work.settle(whole.isLost ? .poison : nil)
        } else if whole.isZeros {
            original.work.settle(.zeros(count: there))
        } else {
            unsafe original.work.settle(.memory(at: UInt(bitPattern: buffer.baseAddress), count: there))
        }
    }
}

/// A request of this process' own, whose first answer counts.
final class AnsweredOnce: RequestedWork {
    private let isOpen = Atomic<Bool>(true)
    private let isUnwanted: @Sendable () -> Bool
    private let answer: @Sendable (PageReply?) -> Void

    /// - Parameters:
    ///   - isCancelled: Whether nobody wants it any more.
    ///   - answer: Gets the answer, `nil` for a failure. Content is at its address only while this is called.
    init(isCancelled: @escaping @Sendable () -> Bool, _ answer: @escaping @Sendable (PageReply?) -> Void) {
        isUnwanted = isCancelled
        self.answer = answer
    }

    var isCancelled: Bool { isUnwanted() }

    func settle(_ reply: PageReply?) {
        guard isOpen.exchange(false, ordering: .acquiringAndReleasing) else { return }
        answer(reply)
    }
}
