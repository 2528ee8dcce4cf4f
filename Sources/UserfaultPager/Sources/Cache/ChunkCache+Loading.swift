internal import Synchronization
internal import UserfaultFD

// Where the content of a chunk comes from, and where it goes. Runs on the threads that ask, those that answer for a
// source, and the cache's own. No lock is held while others are asked.

extension ChunkCache {
    /// What there is of a chunk.
    enum Found {
        /// It is in memory, and pinned.
        case data(place: Int)
        case zeros
        /// It has to be loaded, by the caller.
        case new(ChunkLoad)
        /// It is on its way: the request gets it, or the caller waits for it.
        case underway(ChunkLoad)
        /// There is no place for it now, and the request waits for one.
        case parked
        /// There is no place for it now.
        case noRoom
    }

    /// Looks for a chunk.
    ///
    /// - Parameter request: What wants a part of it; `nil` for the calling thread.
    func find(_ image: CachedImage, _ index: Int, for request: ChunkRequest?) -> Found {
        let key = image.key(index)
        return state.withLock { state in
            if let request, request.isForKeeping { state.keeping.remove(key) }
            if let place = state.table.pin(key) {
                counters.memoryHits.add(1, ordering: .relaxed)
                return .data(place: place)
            }
            if state.zeros.contains(key) {
                counters.memoryHits.add(1, ordering: .relaxed)
                return .zeros
            }
            if let load = state.loads[key] {
                load.state.withLock { state in
                    if let request { state.requests.append(request) } else { state.sleepers += 1 }
                }
                return .underway(load)
            }
            guard let place = state.table.take() else {
                guard let request else { return .noRoom }
                guard request.isDemand else {
                    if request.isForKeeping { state.keeping.insert(key) }
                    state.parked.append(request)
                    return .parked
                }
                // A thread does not wait for the disk to take what others have loaded. The chunk is loaded later, to be
                // kept for the next one, unless too many are already.
                if state.keeping.count < keepingLimit, state.keeping.insert(key).inserted {
                    state.parked.append(request.forKeeping)
                }
                return .noRoom
            }
            let load = ChunkLoad(image, index, place: place, for: request)
            state.loads[key] = load
            return .new(load)
        }
    }

    /// Answers a request, or sees to it that it will be.
    ///
    /// - Returns: Whether a place will be unpinned, or was, so that one that is parked has its turn.
    @discardableResult
    func serve(_ request: ChunkRequest) -> Bool {
        guard !request.isCancelled else {
            request.settle(nil)
            return false
        }
        defer { if request.isForKeeping, state.withLock(\.isAwaitedRest) { rested.signal() } }
        switch find(request.image, request.index, for: request) {
        case .data(let place):
            answer(request, .data, place)
            unpin(place)
            return true
        case .zeros:
            request.settle(.zero)
            return false
        case .new(let load):
            begin(load, request)
            return true
        case .underway, .parked:
            return true
        case .noRoom:
            passOn(request)
            return false
        }
    }

    private func passOn(_ request: ChunkRequest) {
        counters.countPassedOn()
        request.passOn()
    }

    // MARK: Loading

    private func begin(_ load: ChunkLoad, _ request: ChunkRequest) {
        guard disk != nil else { return fetch(load, from: 0, request) }
        reader.put(isUrgent: load.isDemand) { [self] in
            guard let outcome = readFromDisk(load) else { return fetch(load, from: 0, request) }
            end(load, outcome, isOnDisk: true)
        }
    }

    func readFromDisk(_ load: ChunkLoad) -> LoadOutcome? {
        guard let disk, let outcome = unsafe disk.read(load.label, into: room(load.place)) else { return nil }
        counters.diskHits.add(1, ordering: .relaxed)
        return outcome
    }

    /// The room for what a source has of a chunk; what the image does not have of it is zeros.
    func sourceRoom(_ load: ChunkLoad) -> UnsafeMutableRawBufferPointer {
        counters.loads.add(1, ordering: .relaxed)
        let whole = unsafe room(load.place)
        let rest = unsafe UnsafeMutableRawBufferPointer(rebasing: whole[load.range.count...])
        unsafe rest.initializeMemory(as: UInt8.self, repeating: 0)
        return unsafe UnsafeMutableRawBufferPointer(rebasing: whole[..<load.range.count])
    }

    private func fetch(_ load: ChunkLoad, from start: Int, _ request: ChunkRequest) {
        if start == 0 { _ = unsafe sourceRoom(load) }
        // Not one call in the other: a source may answer at once, for a page at a time.
        var next: Int? = start
        while let done = next { next = ask(for: load, from: done, request) }
    }

    /// Asks the source for the rest of a chunk.
    ///
    /// - Returns: Where to go on, if it has answered at once for a part; otherwise its answer goes on, or has ended the load.
    private func ask(for load: ChunkLoad, from done: Int, _ request: ChunkRequest) -> Int? {
        let turn = Turn()
        request.hand(load.range.dropFirst(done), isCancelled: { self.giveUp(load) }) { reply in
            guard let next = self.take(reply, at: done, load) else { return }
            if turn.isLeft(next) { self.fetch(load, from: next, request) }
        }
        return turn.leave()
    }

    /// Who goes on with a load: the thread that asks, if the source has answered before that leaves, or the one that
    /// answers.
    private final class Turn: Sendable {
        private let state = Atomic<Int>(asking)

        private static var asking: Int { -1 }
        private static var left: Int { -2 }

        /// Of the thread that answers: where to go on.
        ///
        /// - Returns: Whether that is its own to do.
        func isLeft(_ next: Int) -> Bool { state.exchange(next, ordering: .acquiringAndReleasing) == Self.left }

        /// Of the thread that asks.
        ///
        /// - Returns: Where it is to go on.
        func leave() -> Int? {
            let next = state.exchange(Self.left, ordering: .acquiringAndReleasing)
            return next == Self.asking ? nil : next
        }
    }

    /// Takes what a source has answered, and ends the load unless a part is still to come.
    ///
    /// - Returns: Where to go on.
    private func take(_ reply: PageReply?, at done: Int, _ load: ChunkLoad) -> Int? {
        let rest = load.range.count - done
        if done == 0, case .zeros(let count)? = reply, count >= rest {
            end(load, .zeros)
            return nil
        }
        let (isContent, count) = store(reply, at: done, load)
        if isContent, count > 0, count < rest { return done + count }
        end(load, isContent && count > 0 ? outcome(of: load) : .failed)
        return nil
    }

    /// Copies what a source has answered.
    ///
    /// - Returns: Whether it is content, and how many bytes of whole pages.
    private func store(_ reply: PageReply?, at done: Int, _ load: ChunkLoad) -> (isContent: Bool, count: Int) {
        guard let reply else { return (false, 0) }
        let room = unsafe UnsafeMutableRawBufferPointer(rebasing: room(load.place)[done..<load.range.count])
        var pages = unsafe OutputRawSpan(buffer: room, initializedCount: 0)
        let isContent = pages.appendContent(of: reply)
        return (isContent, unsafe pages.finalize(for: room) & ~(PageSize.base.bytes - 1))
    }

    /// What a chunk is whose content is there.
    func outcome(of load: ChunkLoad) -> LoadOutcome {
        unsafe UnsafeRawBufferPointer(room(load.place)).isZeros ? .zeros : .data
    }

    /// Whether nobody wants a chunk any more: then the next that does loads it again.
    private func giveUp(_ load: ChunkLoad) -> Bool {
        // Asked without a lock: it is the pagers that answer.
        let requests = load.state.withLock { $0.requests }
        guard requests.allSatisfy(\.isCancelled) else { return false }
        return state.withLock { state in
            let isUnwanted = load.state.withLock { $0.sleepers == 0 && $0.requests.count == requests.count }
            if isUnwanted, state.loads[load.key] === load { state.loads[load.key] = nil }
            return isUnwanted
        }
    }

    /// Gives a chunk to all that wait for it, and keeps it.
    ///
    /// - Parameter isOnDisk: It need not be written.
    func end(_ load: ChunkLoad, _ outcome: LoadOutcome, isOnDisk: Bool = false) {
        let requests = state.withLock { state in
            if state.loads[load.key] === load { state.loads[load.key] = nil }
            if outcome == .data { state.table.name(load.place, load.key) }
            if outcome == .zeros {
                // Those that are forgotten are on the disk, or asked for again.
                if state.zeros.count >= Self.zerosLimit { state.zeros.removeAll(keepingCapacity: true) }
                state.zeros.insert(load.key)
            }
            return load.state.withLock { own in
                if outcome == .data { state.table.pin(load.place, times: own.sleepers) }
                own.outcome = outcome
                defer { own.requests = [] }
                return own.requests
            }
        }
        load.signal()
        for request in requests {
            if outcome != .failed {
                answer(request, outcome, load.place)
            } else if request.isForKeeping || request.isCancelled {
                request.settle(nil)
            } else {
                // One page of the chunk is at fault, and the others are not to suffer for it.
                passOn(request)
            }
        }
        guard outcome != .failed, !isOnDisk, let disk, disk.takesMore else { return unpin(load.place) }
        writer.put { [self] in
            unsafe disk.write(load.label, outcome == .zeros ? nil : UnsafeRawBufferPointer(room(load.place)))
            unpin(load.place)
        }
    }

    private func answer(_ request: ChunkRequest, _ outcome: LoadOutcome, _ place: Int) {
        let content = unsafe part(request.range, place)
        guard outcome == .data, unsafe !content.isZeros else { return request.settle(.zero) }
        unsafe request.settle(.memory(at: UInt(bitPattern: content.baseAddress), count: content.count))
    }

    /// The content of a part of a chunk.
    func part(_ range: Range<Int>, _ place: Int) -> UnsafeRawBufferPointer {
        let start = range.lowerBound % configuration.chunkBytes
        return unsafe UnsafeRawBufferPointer(rebasing: room(place)[start..<start + range.count])
    }

    // MARK: Room

    /// Lets a place go, and a request that waits for one have its turn.
    func unpin(_ place: Int) {
        let (next, isRest) = state.withLock { state in
            state.table.unpin(place)
            return (state.table.unpinned > 0 ? state.parked.next() : nil, state.isAwaitedRest)
        }
        if isRest { rested.signal() }
        guard let next else { return }
        // Not from here, which may be in the answer of a source that answers at once, again and again.
        reader.put { [self] in
            var request: ChunkRequest? = next
            while let current = request, !serve(current) {
                request = state.withLock { $0.table.unpinned > 0 ? $0.parked.next() : nil }
            }
        }
    }
}

extension UnsafeRawBufferPointer {
    /// Whether all of it is zeros; it is whole words.
    var isZeros: Bool {
        unsafe withMemoryRebound(to: UInt64.self) { unsafe $0.allSatisfy { $0 == 0 } }
    }
}
