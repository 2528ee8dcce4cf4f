#if NBD
internal import Synchronization
internal import SystemPackage
internal import UserfaultFD
internal import UserfaultPager

// What is asked of the server, and what becomes of its replies.

extension Loop {
    // MARK: Sending

    /// Sends as much as connections and memory allow, the most urgent first.
    mutating func send() {
        guard let export else { return }
        defer { dropTheGone() }
        let depth = configuration.requestsPerConnection
        while let connection = leastBusy {
            let inFlight = connection.inFlight
            guard inFlight < depth else { return }
            // A thread may have come to wait for what was asked for ahead: it must not wait for ever.
            let aheadFirst = demandInARow >= 8
            // What nobody waits for leaves room for what somebody does.
            let demandOnly = !aheadFirst && inFlight >= max(1, depth / 2)
            let room = memory == 0 ? Int.max : configuration.memoryLimit - memory
            guard let letter = queue.takeFirst(demandOnly: demandOnly, aheadFirst: aheadFirst, atMost: room) else {
                return
            }
            demandInARow = letter.isDemand ? demandInARow + 1 : 0
            // What has just come is wanted.
            if letter.round != round, letter.dropIfCancelled() { continue }
            switch content(of: letter, export) {
            case .zeros: complete(letter)
            case .unknown(let window): park(letter, window, on: connection)
            case .data: read(letter, isAllData: true, export, on: connection)
            case .mixed: read(letter, isAllData: false, export, on: connection)
            }
        }
    }

    /// The connection on which the least is outstanding.
    private var leastBusy: Connection? {
        var least: Connection?
        for connection in connections where connection.canBeAsked {
            if connection.inFlight < least?.inFlight ?? .max { least = connection }
        }
        return least
    }

    /// What a request is for; after the export's end there are zeros.
    private func content(of letter: Letter, _ export: NBDExport) -> BlockMap.Content {
        let range = letter.range.clamped(to: 0..<export.byteCount)
        guard !range.isEmpty else { return .zeros }
        return export.hasExtents ? map.content(of: range) : .data
    }

    private func complete(_ letter: Letter) {
        mailbox.counters.bytesInHoles.add(letter.range.count, ordering: .relaxed)
        letter.take()?.complete(.zero)
    }

    /// - Parameter isAllData: Whether there is no hole in what is asked for.
    private mutating func read(_ letter: Letter, isAllData: Bool, _ export: NBDExport, on connection: Connection) {
        var isAllData = isAllData
        let neighbours = takeNeighbours(of: letter, &isAllData, export)
        let wanted = letter.range.lowerBound..<(neighbours.last ?? letter).range.upperBound
        if export.takes(wanted), isAllData {
            let read = Read(letter, neighbours, wanted, zeros: [], in: &readMemory)
            return send(CollectionOfOne(wanted), of: read, on: connection)
        }
        let known = wanted.clamped(to: 0..<export.byteCount)
        let runs = export.hasExtents ? map.runs(in: known) : [BlockRun(range: known, isZero: false)]
        // Holes shorter than a page are read with what is around them: a request takes no more commands than it has pages.
        let parts = runs.parts(
            minimum: export.minimumBlock, maximum: export.maximumBlock, gap: PageSize.base.bytes)
        let lower = min(wanted.lowerBound, parts.first?.lowerBound ?? .max)
        let upper = max(wanted.upperBound, parts.last?.upperBound ?? 0)
        var zeros = runs.filter(\.isZero).map(\.range)
        mailbox.counters.bytesInHoles.add(zeros.reduce(0) { $0 + $1.count }, ordering: .relaxed)
        // Behind the end there are zeros.
        if upper > export.byteCount { zeros.append(max(lower, export.byteCount)..<upper) }
        send(parts, of: Read(letter, neighbours, lower..<upper, zeros: zeros, in: &readMemory), on: connection)
    }

    /// The most bytes that neighbouring requests are read of at once.
    func mostBytesAtOnce(_ export: NBDExport) -> Int {
        min(max(configuration.coalescedBytes, export.preferredBlock), export.maximumBlock)
    }

    /// Takes the requests that continue where one ends, as far as one read is to bring them.
    ///
    /// - Parameter isAllData: Whether there is no hole in all of them.
    private mutating func takeNeighbours(of letter: Letter, _ isAllData: inout Bool, _ export: NBDExport) -> [Letter] {
        var neighbours: [Letter] = []
        let most = mostBytesAtOnce(export)
        var count = letter.range.count
        while count < most, memory + count < configuration.memoryLimit,
            let neighbour = queue.takeNeighbour(
                of: neighbours.last ?? letter, atMost: min(most, configuration.memoryLimit - memory) - count)
        {
            let content = content(of: neighbour, export)
            guard content == .data || content == .mixed else {
                queue.put(neighbour)
                break
            }
            if content == .mixed { isAllData = false }
            neighbours.append(neighbour)
            count += neighbour.range.count
        }
        return neighbours
    }

    private mutating func send(_ parts: some Collection<Range<Int>>, of read: Read, on connection: Connection) {
        read.place = reads.count
        reads.append(read)
        memory += read.range.count
        if memory > mailbox.counters.peakMemory.load(ordering: .relaxed) {
            mailbox.counters.peakMemory.store(memory, ordering: .relaxed)
        }
        read.partsLeft = parts.count
        mailbox.counters.reads.add(parts.count, ordering: .relaxed)
        var isRefused = false
        for part in parts {
            guard let place = unsafe read.place(of: part) else { continue }
            if unsafe !connection.read(Flight(.part(read), part, on: connection), into: place) { isRefused = true }
        }
        if isRefused { settle() }
    }

    // MARK: Replies

    /// Does what follows from everything that has finished.
    mutating func settle() {
        var index = 0
        while index < connections.count {
            // What follows from one may be refused at once, and has finished then too.
            index = settle(connections[index]) ? 0 : index + 1
        }
    }

    /// As ``settle()``, for what has finished on one connection.
    ///
    /// - Returns: Whether there was something.
    @discardableResult
    mutating func settle(_ connection: Connection) -> Bool {
        var isAny = false
        while let flight = connection.takeFinished() {
            settle(flight, of: connection)
            isAny = true
        }
        return isAny
    }

    private mutating func settle(_ flight: Flight, of connection: Connection) {
        let failure = flight.failure
        // Whatever failed with the connection says nothing about the bytes.
        let isLost = failure != nil && (flight.breaksProtocol || !connection.isReady || connection.isGone)
        if flight.breaksProtocol, connection.isReady, let failure { lose(connection, failure) }
        switch flight.purpose {
        case .part(let read):
            if isLost { read.lostConnection = true }
            finish(flight.range, of: read, failure)
        case .window(let inquiry):
            learn(inquiry, failure, isLost: isLost)
        }
    }

    private mutating func finish(_ part: Range<Int>, of read: Read, _ error: NBDError?) {
        read.partsLeft -= 1
        if let error {
            // Those of several requests are read again, one by one.
            if !read.lostConnection, read.neighbours.isEmpty { report(.readFailed(part, error)) }
            read.failure = read.failure ?? error
        } else {
            mailbox.counters.bytesRead.add(part.count, ordering: .relaxed)
        }
        guard read.partsLeft == 0 else { return }
        forget(read)
        memory -= read.range.count
        if read.failure == nil {
            read.complete()
            read.giveBack(to: &readMemory)
        } else if read.neighbours.isEmpty || read.lostConnection {
            for letter in read.letters { fail(letter) }
        } else {
            // One of them is at fault, and the others are not to suffer for it.
            for letter in read.letters {
                letter.isAlone = true
                queue.put(letter)
            }
        }
    }

    private mutating func forget(_ read: Read) {
        // The last one takes its place.
        let last = reads.removeLast()
        guard last !== read else { return }
        last.place = read.place
        reads[read.place] = last
    }
}
#endif
