import Synchronization
import UserfaultFD

@testable import UserfaultPager

/// Keeps its requests until a test takes them.
final class Mailbox: Sendable {
    private let letters = Mutex<[Letter]>([])
    let received = Atomic<Int>(0)

    final class Letter: @unchecked Sendable {
        private var request: PageRequest?

        init(_ request: consuming PageRequest) {
            self.request = consume request
        }

        func take() -> PageRequest { request.take()! }

        var isCancelled: Bool {
            let taken = take()
            let isCancelled = taken.isCancelled
            request = consume taken
            return isCancelled
        }
    }

    func put(_ request: consuming PageRequest) {
        let letter = Letter(request)
        letters.withLock { $0.append(letter) }
        received.add(1, ordering: .releasing)
    }

    func takeAll() -> [Letter] {
        letters.withLock { letters in
            defer { letters = [] }
            return letters
        }
    }
}

/// Pages that come when a test completes their requests.
struct LaterSource: AsynchronousPageSource {
    let box: Mailbox

    func load(_ request: consuming PageRequest) { box.put(request) }
}

extension PageRequest {
    /// Completes it with numbered pages.
    ///
    /// - Parameter most: Fewer bytes than are wanted.
    consuming func completeNumbered(upTo most: Int = .max) {
        var words: [UInt64] = []
        for position in stride(from: offset, to: offset + min(most, byteCount), by: pageBytes) {
            words += [UInt64](repeating: NumberedSource.word(position), count: pageBytes / 8)
        }
        complete(words.span.bytes)
    }
}

/// Numbered pages that come later; counts how often it is asked.
final class NumberedLaterSource: AsynchronousPageSource {
    private let isHeld: Atomic<Bool>
    private let held = Mailbox()
    private let most: Int
    private let calls = Atomic<Int>(0)

    /// - Parameters:
    ///   - isHeld: Keeps requests until ``release(failing:)``.
    ///   - most: The most bytes of one answer.
    init(isHeld: Bool = false, most: Int = .max) {
        self.isHeld = Atomic(isHeld)
        self.most = most
    }

    var count: Int { calls.load(ordering: .acquiring) }

    func load(_ request: consuming PageRequest) {
        defer { calls.add(1, ordering: .releasing) }
        if isHeld.load(ordering: .acquiring) { return held.put(request) }
        request.completeNumbered(upTo: most)
    }

    /// Answers what it has kept, and from now on at once.
    func release(failing: Bool = false) {
        isHeld.store(false, ordering: .releasing)
        for letter in held.takeAll() {
            if failing { letter.take().fail() } else { letter.take().completeNumbered() }
        }
    }
}
