#if NBD
internal import UserfaultPager

/// A request for pages, until it is completed.
///
/// Made by a thread of a pager, and afterwards only used by the source's own.
final class Letter: @unchecked Sendable {
    let range: Range<Int>
    let isDemand: Bool
    private var request: PageRequest?
    /// A read of several requests failed: it is read by itself, to learn which of them it was.
    var isAlone = false
    /// The round of the thread in which it came.
    var round = 0

    init(_ request: consuming PageRequest) {
        range = request.offset..<request.offset + request.byteCount
        isDemand = request.priority == .demand
        self.request = consume request
    }

    /// A request that nobody made: for tests of the queue.
    init(range: Range<Int>, isDemand: Bool) {
        self.range = range
        self.isDemand = isDemand
    }

    /// Gives the request away, once.
    func take() -> PageRequest? { request.take() }

    /// Whether nobody wants it any more; then it is given back.
    func dropIfCancelled() -> Bool {
        guard let request = request.take() else { return true }
        guard !request.isCancelled else { return true }
        self.request = consume request
        return false
    }
}

/// Requests that are to be sent: those that a thread waits for first, each kind in the order in which they came.
struct RequestQueue {
    private struct Line {
        var letters: [Letter?] = []
        var first = 0
        /// Where each is that another may be read along with, by where it begins.
        var places: [Int: Int] = [:]
        var count = 0
        /// The most bytes of one read: a request that has so many has no neighbours.
        let most: Int

        mutating func put(_ letter: Letter) {
            if letter.range.count < most { places[letter.range.lowerBound] = letters.count }
            letters.append(letter)
            count += 1
        }

        mutating func take(at place: Int) -> Letter? {
            guard let letter = letters[place] else { return nil }
            letters[place] = nil
            count -= 1
            if letter.range.count < most, places[letter.range.lowerBound] == place {
                places[letter.range.lowerBound] = nil
            }
            while first < letters.count, letters[first] == nil { first += 1 }
            if first == letters.count {
                letters.removeAll(keepingCapacity: true)
                first = 0
            } else if first > 1024, first > letters.count / 2 {
                compact()
            }
            return letter
        }

        private mutating func compact() {
            letters.removeFirst(first)
            first = 0
            places.removeAll(keepingCapacity: true)
            for (place, letter) in letters.enumerated() {
                if let letter, letter.range.count < most { places[letter.range.lowerBound] = place }
            }
        }

        mutating func takeFirst(atMost bytes: Int) -> Letter? {
            guard count > 0, let head = letters[first], head.range.count <= bytes else { return nil }
            return take(at: first)
        }

        mutating func take(startingAt offset: Int, atMost bytes: Int) -> Letter? {
            guard let place = places[offset], let letter = letters[place], !letter.isAlone, letter.range.count <= bytes
            else { return nil }
            return take(at: place)
        }

        mutating func removeAll(where isUnwanted: (Letter) -> Bool) -> [Letter] {
            let kept = letters.compactMap(\.self)
            var removed: [Letter] = []
            self = Line(most: most)
            for letter in kept {
                if isUnwanted(letter) { removed.append(letter) } else { put(letter) }
            }
            return removed
        }
    }

    private var demand: Line
    private var ahead: Line

    /// - Parameter most: The most bytes of one read.
    init(most: Int = .max) {
        demand = Line(most: most)
        ahead = Line(most: most)
    }

    var isEmpty: Bool { demand.count == 0 && ahead.count == 0 }

    mutating func put(_ letter: Letter) {
        if letter.isDemand { demand.put(letter) } else { ahead.put(letter) }
    }

    /// Takes the most urgent request.
    ///
    /// - Parameters:
    ///   - aheadFirst: It is the turn of those that no thread waited for when they came.
    ///   - bytes: If it has more, none is taken.
    mutating func takeFirst(demandOnly: Bool = false, aheadFirst: Bool = false, atMost bytes: Int = .max) -> Letter? {
        if demand.count == 0 || aheadFirst && ahead.count > 0 {
            return demandOnly && demand.count == 0 ? nil : ahead.takeFirst(atMost: bytes)
        }
        return demand.takeFirst(atMost: bytes)
    }

    /// Takes the request that continues where another ends, if it is as urgent.
    mutating func takeNeighbour(of letter: Letter, atMost bytes: Int) -> Letter? {
        guard !letter.isAlone else { return nil }
        return letter.isDemand
            ? demand.take(startingAt: letter.range.upperBound, atMost: bytes)
            : ahead.take(startingAt: letter.range.upperBound, atMost: bytes)
    }

    /// Takes out those that nobody wants any more, or all.
    mutating func removeAll(where isUnwanted: (Letter) -> Bool = { _ in true }) -> [Letter] {
        demand.removeAll(where: isUnwanted) + ahead.removeAll(where: isUnwanted)
    }
}
#endif
