internal import UserfaultFD

// How a source is asked for a part of what was asked for.

extension OutputRawSpan {
    /// Lends the next bytes of the room, which are empty; what was appended before a failure does not count.
    mutating func withRoom<Result, Failure: Error>(
        _ count: Int, _ body: (inout OutputRawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        try unsafe withUnsafeMutableBytes { (buffer, initialized) throws(Failure) in
            let room = unsafe UnsafeMutableRawBufferPointer(
                rebasing: buffer[initialized..<initialized + min(count, buffer.count - initialized)])
            var part = unsafe OutputRawSpan(buffer: room, initializedCount: 0)
            let result = try body(&part)
            initialized += unsafe part.finalize(for: room)
            return result
        }
    }

    /// Appends the content that a source has for the next bytes of the room.
    ///
    /// - Parameters:
    ///   - count: For how many bytes it is asked.
    ///   - ask: Asks it.
    /// - Returns: Its reply, and whether that is content.
    mutating func appendContent<Failure: Error>(
        of count: Int, _ ask: (inout OutputRawSpan) throws(Failure) -> PageReply
    ) throws(Failure) -> (reply: PageReply, isContent: Bool) {
        try withRoom(count) { (room) throws(Failure) in
            let reply = try ask(&room)
            return (reply, room.takeContent(of: reply))
        }
    }

    /// Appends bytes that are at an address, or as many of them as there is room for.
    ///
    /// The kernel copies: a file that is mapped there may have become shorter.
    ///
    /// - Returns: `false` if they cannot be read.
    mutating func appendContent(at address: UInt, _ count: Int) -> Bool {
        unsafe withUnsafeMutableBytes { buffer, initialized in
            let count = min(count, buffer.count - initialized)
            guard count > 0, let room = buffer.baseAddress else { return count == 0 }
            let content = unsafe UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: address), count: count)
            let place = UInt(bitPattern: unsafe room + initialized)
            guard (try? unsafe AddressSpace.store(content, at: place)) != nil else { return false }
            initialized += count
            return true
        }
    }

    /// Has zeros follow what a source has answered for the first bytes of the room, if it has answered for all of them.
    ///
    /// - Parameter wanted: For how many bytes it was asked.
    mutating func appendZeros(after reply: PageReply, of wanted: Int) -> PageReply {
        switch reply {
        case .data where byteCount == wanted: break
        case .zeros(let count) where count == wanted: return .zero
        case .memory(_, let count) where count == wanted, .movable(_, let count) where count == wanted:
            guard takeContent(of: reply) else { return reply }
        case .data, .zeros, .memory, .movable, .inFile, .poison: return reply
        }
        unsafe append(repeating: 0, count: freeCapacity, as: UInt8.self)
        return .data
    }

    /// Makes of a room for which a source was asked what it has answered.
    ///
    /// - Returns: `false` if the reply is not content.
    mutating func takeContent(of reply: PageReply) -> Bool {
        // What else was appended is nothing that the reply is about.
        if reply != .data { removeAll() }
        return appendContent(of: reply)
    }

    /// Appends what a reply says of all the room that there is, so that more may follow.
    ///
    /// - Parameter reply: The reply to a request for this room, which may have appended already.
    /// - Returns: `false` if the reply is not content.
    mutating func appendContent(of reply: PageReply) -> Bool {
        switch reply {
        case .data: return true
        case .zeros(let count):
            unsafe append(repeating: 0, count: max(0, min(count, freeCapacity)), as: UInt8.self)
            return true
        case .memory(let address, let count), .movable(let address, let count):
            return appendContent(at: address, count)
        case .poison, .inFile: return false
        }
    }
}

extension PageSource where Self: ~Copyable {
    /// Fills the rest of a room, asking as often as it takes.
    ///
    /// - Parameter offset: Where the room begins.
    /// - Returns: `nil` if it is full; else the reply that has brought nothing.
    func fill(_ pages: inout OutputRawSpan, from offset: Int) throws(Failure) -> PageReply? {
        while pages.freeCapacity > 0 {
            // What is no whole page is asked for again.
            pages.removeLast(pages.byteCount % PageSize.base.bytes)
            let before = pages.byteCount
            let (reply, isContent) = try pages.appendContent(of: pages.freeCapacity) { (room) throws(Failure) in
                try load(offset: offset + before, into: &room)
            }
            guard isContent, pages.byteCount - before >= PageSize.base.bytes else { return reply }
        }
        return nil
    }

    /// Takes a request, or answers it in place.
    func handOrLoad(_ request: consuming PageRequest) {
        guard handling == .immediate else { return hand(request) }
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: request.byteCount, alignment: 64)
        defer { unsafe room.deallocate() }
        var pages = unsafe OutputRawSpan(buffer: room, initializedCount: 0)
        let reply = try? load(offset: request.offset, into: &pages)
        let count = unsafe pages.finalize(for: room)
        switch reply {
        case nil: request.fail()
        case .data: request.complete(.memory(at: UInt(bitPattern: room.baseAddress), count: count))
        case .some(let reply): request.complete(reply)
        }
    }
}
