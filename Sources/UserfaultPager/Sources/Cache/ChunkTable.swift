/// A chunk of an image, by its number.
struct ChunkKey: Hashable {
    let image: Int
    let index: Int
}

/// Which chunk is in which place of a memory with a fixed number of places.
///
/// Makes no system call. A place that is pinned is not given to another chunk. Of the others, one goes that was not used
/// since the hand came by the last time.
struct ChunkTable {
    private struct Place {
        var key: ChunkKey?
        var pins = 0
        var isRecent = false
    }

    private var places: [Place]
    private var numbers: [ChunkKey: Int] = [:]
    private var hand = 0
    /// Places without a pin.
    private(set) var unpinned: Int

    init(places count: Int) {
        places = Array(repeating: Place(), count: count)
        numbers.reserveCapacity(count)
        unpinned = count
    }

    /// The place of a chunk, pinned.
    mutating func pin(_ key: ChunkKey) -> Int? {
        guard let number = numbers[key] else { return nil }
        pin(number)
        places[number].isRecent = true
        return number
    }

    /// Pins a place that is pinned already, or was found just now.
    mutating func pin(_ number: Int, times: Int = 1) {
        guard times > 0 else { return }
        if places[number].pins == 0 { unpinned -= 1 }
        places[number].pins += times
    }

    /// Takes a place for a chunk that is not there yet, pinned.
    ///
    /// - Returns: `nil` if all are pinned.
    mutating func take() -> Int? {
        guard unpinned > 0 else { return nil }
        while true {
            let number = hand
            hand = (hand + 1) % places.count
            guard places[number].pins == 0 else { continue }
            if places[number].isRecent, places[number].key != nil {
                places[number].isRecent = false
                continue
            }
            if let key = places[number].key { numbers[key] = nil }
            places[number] = Place()
            pin(number)
            return number
        }
    }

    /// Says which chunk is in a place that was taken; another place may have it already.
    mutating func name(_ number: Int, _ key: ChunkKey) {
        guard numbers[key] == nil else { return }
        places[number].key = key
        places[number].isRecent = true
        numbers[key] = number
    }

    var isUnpinned: Bool { unpinned == places.count }

    mutating func unpin(_ number: Int) {
        places[number].pins -= 1
        if places[number].pins == 0 { unpinned += 1 }
    }
}

/// The numbers of images, by which their chunks are found: of those that were asked for last.
///
/// A number is never given twice. The chunks of an image that is forgotten are found by nobody any more, unless it is in use,
/// and make room for others.
struct ImageTable {
    private struct Entry {
        let number: Int
        var lastUse: Int
    }

    private var entries: [ImageIdentity: Entry] = [:]
    private var next = 0
    private var uses = 0
    private let limit: Int

    /// - Parameter limit: The most images that are known.
    init(limit: Int) {
        self.limit = limit
    }

    var count: Int { entries.count }

    /// The number of an image, a new one if it is not known.
    mutating func number(of identity: ImageIdentity) -> Int {
        uses += 1
        if let known = entries[identity] {
            entries[identity] = Entry(number: known.number, lastUse: uses)
            return known.number
        }
        if entries.count == limit, let oldest = entries.min(by: { $0.value.lastUse < $1.value.lastUse }) {
            entries[oldest.key] = nil
        }
        next += 1
        entries[identity] = Entry(number: next, lastUse: uses)
        return next
    }
}
