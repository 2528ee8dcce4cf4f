import Synchronization
import UserfaultFD
import UserfaultPager

/// The content of an ``LZ4File``, decompressed when it is touched, in the thread that touches it.
///
/// Nothing here takes memory or waits for a lock after `init`: it runs in a signal handler.
struct LZ4Source: ~Copyable, PageSource {
    enum Failure: Error {
        case brokenBlock(Int)
    }

    let file: LZ4File
    private let rooms: Rooms

    init(_ file: consuming LZ4File, rooms: Int = 32) throws {
        self.rooms = try Rooms(count: rooms, bytes: file.blockBytes)
        self.file = file
    }

    var isSignalSafe: Bool { true }

    func load(offset: Int, into pages: inout OutputRawSpan) throws(Failure) -> PageReply {
        guard offset < file.byteCount else { return .zero }
        var position = offset
        while pages.freeCapacity > 0, position < file.byteCount {
            let block = position / file.blockBytes
            let count = append(block, from: position % file.blockBytes, to: &pages)
            if count == 0, position == offset { throw .brokenBlock(block) }
            // The blocks before a broken one are good.
            if count == 0 { return .data }
            position += count
        }
        // The last page of the content may be a part of one.
        let past = pages.byteCount % PageSize.base.bytes
        if past > 0 { pages.append(repeating: 0, count: PageSize.base.bytes - past, as: UInt8.self) }
        return .data
    }

    /// - Returns: How many bytes were appended; 0 if the block is broken.
    private func append(_ block: Int, from first: Int, to pages: inout OutputRawSpan) -> Int {
        let whole = file.count(ofBlock: block)
        let wanted = min(pages.freeCapacity, whole - first)
        var isGood = false
        pages.withUnsafeMutableBytes { buffer, initialized in
            let target = UnsafeMutableRawBufferPointer(rebasing: buffer[initialized..<initialized + wanted])
            if wanted == whole {
                isGood = file.decompress(block, into: target)
            } else {
                // The neighbours of a page are touched soon: their block is kept.
                isGood = rooms.withRoom(for: block) { room, holdsBlock in
                    guard holdsBlock || file.decompress(block, into: room) else { return false }
                    target.copyMemory(from: UnsafeRawBufferPointer(rebasing: room[first..<first + wanted]))
                    return true
                }
            }
            if isGood { initialized += wanted }
        }
        return isGood ? wanted : 0
    }
}

/// Rooms for one decompressed block each, for one thread at a time.
private struct Rooms: ~Copyable, @unchecked Sendable {
    private struct Room: ~Copyable {
        let isTaken = Atomic<Bool>(false)
        /// The number of the block that is inside; written by the thread that has the room.
        let block = Atomic<Int>(-1)
    }

    private let rooms: UnsafeMutableBufferPointer<Room>
    private let memory: Mapping
    private let bytes: Int
    private let next = Atomic<Int>(0)

    init(count: Int, bytes: Int) throws {
        memory = try Mapping(anonymous: count * bytes)
        rooms = .allocate(capacity: count)
        for index in 0..<count { rooms.initializeElement(at: index, to: Room()) }
        self.bytes = bytes
    }

    deinit {
        for index in rooms.indices { rooms.deinitializeElement(at: index) }
        rooms.deallocate()
    }

    /// - Parameter body: Is given a room, and whether it holds the block; answers whether it does so now.
    func withRoom(for block: Int, _ body: (UnsafeMutableRawBufferPointer, Bool) -> Bool) -> Bool {
        let index = take(for: block)
        let start = UnsafeMutableRawPointer(bitPattern: memory.range.start + UInt(index * bytes))
        let holds = body(
            UnsafeMutableRawBufferPointer(start: start, count: bytes),
            rooms[index].block.load(ordering: .relaxed) == block)
        rooms[index].block.store(holds ? block : -1, ordering: .relaxed)
        rooms[index].isTaken.store(false, ordering: .releasing)
        return holds
    }

    private func take(for block: Int) -> Int {
        for index in rooms.indices
        where rooms[index].block.load(ordering: .relaxed) == block && take(index) { return index }
        // More rooms than threads that fault at once: one is free, and the others are not for long.
        while true {
            let index = abs(next.add(1, ordering: .relaxed).newValue % rooms.count)
            if take(index) { return index }
        }
    }

    private func take(_ index: Int) -> Bool {
        rooms[index].isTaken.compareExchange(expected: false, desired: true, ordering: .acquiring).exchanged
    }
}
