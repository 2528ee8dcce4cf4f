#if NBD
internal import CNBD
internal import Synchronization
internal import SystemPackage
internal import UserfaultFD

// Where the server has holes.

/// What another thread wants to know of a part of the export.
final class Question: @unchecked Sendable {
    let range: Range<Int>
    let answer = Answer<[Range<Int>]>()
    /// Nobody waits for the answer any more.
    let isAbandoned = Atomic(false)

    // The source's thread's own.
    /// From where on the answer is not known.
    fileprivate var at: Int
    /// Where there is data before that.
    fileprivate var found: [BlockRun] = []

    init(_ range: Range<Int>) {
        self.range = range
        at = max(0, range.lowerBound)
    }
}

/// What the server is asked of a window, from an offset on.
final class Inquiry {
    let window: Int
    let start: Int
    /// What is known of the window before that.
    let known: [BlockRun]
    /// How often the server was asked about the window before.
    let asks: Int
    /// The runs that the server told, as lengths.
    private(set) var runs: [(length: UInt32, isZero: Bool)] = []

    init(_ window: Int, from start: Int, known: [BlockRun], asks: Int) {
        self.window = window
        self.start = start
        self.known = known
        self.asks = asks
    }

    /// Takes runs: pairs of lengths and flags.
    ///
    /// - Parameter bytes: What lies behind so many is of no interest.
    /// - Returns: `false` if there are some already.
    func learn(_ words: UnsafeMutableBufferPointer<UInt32>, of bytes: Int) -> Bool {
        guard runs.isEmpty else { return false }
        var told = 0
        for index in stride(from: 0, to: words.count - 1, by: 2) where told < bytes {
            // Only what reads as zeros is a hole: unallocated bytes may read as anything.
            let isZero = unsafe words[index + 1] & UInt32(LIBNBD_STATE_ZERO) != 0
            unsafe runs.append((words[index], isZero))
            told += unsafe Int(words[index])
        }
        return true
    }
}

extension Loop {
    /// Keeps a request until its window is known.
    mutating func park(_ letter: Letter, _ window: Int, on connection: Connection) {
        let isAsked = parked[window] != nil
        parked[window, default: []].append(letter)
        if !isAsked { begin(window, on: connection) }
    }

    private static var mostAsks: Int { 64 }

    private mutating func begin(_ window: Int, on connection: Connection) {
        ask(window, from: map.range(ofWindow: window).lowerBound, known: [], on: connection)
    }

    private mutating func ask(
        _ window: Int, from start: Int, known: [BlockRun], asks: Int = 0, on connection: Connection
    ) {
        let range = start..<map.range(ofWindow: window).upperBound
        // A server that tells little at a time is not asked for ever.
        guard asks < Self.mostAsks else { return know(range, asData: window, known) }
        let inquiry = Inquiry(window, from: start, known: known, asks: asks)
        connection.askExtents(Flight(.window(inquiry), range, on: connection))
        // What libnbd refuses is over at once, and no reply comes that would tell.
        settle()
    }

    /// Takes notice of what the server said of a window.
    mutating func learn(_ inquiry: Inquiry, _ failure: NBDError?, isLost: Bool) {
        let window = inquiry.window
        if isLost {
            // As for reads that are lost. Questions ask again once there is a connection.
            for letter in parked.removeValue(forKey: window) ?? [] { fail(letter) }
            return
        }
        let end = map.range(ofWindow: window).upperBound
        var runs = inquiry.known
        var at = inquiry.start
        for run in inquiry.runs where at < end {
            let next = min(end, at + Int(run.length))
            BlockMap.append(BlockRun(range: at..<next, isZero: run.isZero), to: &runs)
            at = next
        }
        guard failure == nil, at > inquiry.start else {
            return know(nothingOf: window, from: inquiry.start, inquiry.known, failure)
        }
        if at < end, let connection = connections.first(where: \.isReady) {
            ask(window, from: at, known: runs, asks: inquiry.asks + 1, on: connection)
        } else if at < end {
            unpark(window)
        } else {
            map.learn(window: window, runs)
            unpark(window)
        }
    }

    /// The server does not tell what is in the rest of a window: all of it is read.
    private mutating func know(nothingOf window: Int, from start: Int, _ known: [BlockRun], _ error: NBDError?) {
        let rest = start..<map.range(ofWindow: window).upperBound
        report(.extentsFailed(rest, error ?? NBDError(.extents, message: "the server told nothing")))
        know(rest, asData: window, known)
    }

    private mutating func know(_ rest: Range<Int>, asData window: Int, _ known: [BlockRun]) {
        var runs = known
        BlockMap.append(BlockRun(range: rest, isZero: false), to: &runs)
        map.learn(window: window, runs)
        unpark(window)
    }

    private mutating func unpark(_ window: Int) {
        for letter in parked.removeValue(forKey: window) ?? [] { queue.put(letter) }
    }

    /// Answers questions, and asks the server for what they need.
    mutating func answer() {
        guard let export, !questions.isEmpty else { return }
        let asked = questions
        questions = []
        for question in asked where !question.isAbandoned.load(ordering: .relaxed) {
            let range = question.range.clamped(to: 0..<export.byteCount)
            if !export.hasExtents {
                question.answer.set(.success(range.isEmpty ? [] : [range]))
            } else if advance(question, to: range.upperBound) {
                question.answer.set(.success(question.found.map(\.range)))
            } else {
                questions.append(question)
            }
        }
    }

    /// Takes what is known into the answer, window by window; asks for the first that is not known.
    ///
    /// What was taken stays, also if there are too many windows for all to be remembered.
    ///
    /// - Returns: Whether the answer is complete.
    private mutating func advance(_ question: Question, to end: Int) -> Bool {
        while question.at < end {
            let window = map.window(of: question.at)
            let part = question.at..<min(end, map.range(ofWindow: window).upperBound)
            if map.unknownWindow(in: part) != nil {
                guard parked[window] == nil, let connection = connections.first(where: { $0.isReady && !$0.isGone })
                else { return false }
                parked[window] = []
                begin(window, on: connection)
                guard parked[window] == nil, map.unknownWindow(in: part) == nil else { return false }
            }
            for run in map.runs(in: part) where !run.isZero { BlockMap.append(run, to: &question.found) }
            question.at = part.upperBound
        }
        return true
    }
}
#endif
