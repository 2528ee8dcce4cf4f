import CUserfaultFD
import Testing

@testable import UserfaultFD

@Suite struct EventBatchTests {
    /// A batch that holds the messages, as if the kernel had written them.
    static func batch(_ messages: [cuffd_msg]) -> EventBatch {
        var batch = EventBatch(capacity: max(1, messages.count))
        _ = batch.refill(inheriting: .init()) { buffer in
            for (index, message) in messages.enumerated() { buffer[index] = message }
            return messages.count * MemoryLayout<cuffd_msg>.size
        }
        return batch
    }

    static func message(_ event: UInt64, _ words: (UInt64, UInt64, UInt64)) -> cuffd_msg {
        var message = cuffd_msg()
        message.event = UInt8(event)
        message.arg.words = words
        return message
    }

    @Test func decodesEveryEvent() throws {
        var batch = Self.batch([
            Self.message(CUFFD_EVENT_PAGEFAULT, (CUFFD_PAGEFAULT_FLAG_WRITE | CUFFD_PAGEFAULT_FLAG_WP, 0x7000, 42)),
            Self.message(CUFFD_EVENT_REMAP, (0x1000, 0x9000, 0x2000)),
            Self.message(CUFFD_EVENT_REMOVE, (0x1000, 0x3000, 0)),
            Self.message(CUFFD_EVENT_UNMAP, (0x4000, 0x5000, 0)),
            Self.message(0x77, (1, 2, 3)),
        ])
        #expect(batch.count == 5)
        guard case .pagefault(let fault) = batch.next() else { throw Unexpected() }
        #expect(fault == PageFault(address: 0x7000, flags: [.write, .writeProtect], threadID: 42))
        #expect(fault.kind == .writeProtect && fault.isWrite)
        guard case .remap(let from, let to, let count) = batch.next() else { throw Unexpected() }
        #expect(from == 0x1000 && to == 0x9000 && count == 0x2000)
        guard case .remove(let removed) = batch.next() else { throw Unexpected() }
        #expect(removed == AddressRange(start: 0x1000, count: 0x2000))
        guard case .unmap(let unmapped) = batch.next() else { throw Unexpected() }
        #expect(unmapped == AddressRange(start: 0x4000, count: 0x1000))
        guard case .unknown(let event) = batch.next() else { throw Unexpected() }
        #expect(event.number == 0x77)
        #expect(batch.isEmpty == true)
        guard case nil = batch.next() else { throw Unexpected() }
    }

    @Test func kindIsDecodedInTheKernelsOrder() {
        let rows: [(PageFault.Flags, PageFault.Kind)] = [
            ([], .missing), ([.write], .missing), ([.minor], .minor), ([.minor, .write], .minor),
            ([.writeProtect, .write], .writeProtect), ([.readWriteProtect], .readWriteProtect),
            ([.readWriteProtect, .writeProtect, .minor, .write], .readWriteProtect),
        ]
        for (flags, kind) in rows { #expect(PageFault(address: 0, flags: flags).kind == kind) }
    }

    @Test func nextPageFaultLeavesOtherEvents() throws {
        var batch = Self.batch([
            Self.message(CUFFD_EVENT_PAGEFAULT, (0, 0x1000, 0)), Self.message(CUFFD_EVENT_UNMAP, (0x4000, 0x5000, 0)),
            Self.message(CUFFD_EVENT_PAGEFAULT, (0, 0x2000, 0)),
        ])
        #expect(batch.nextPageFault()?.address == 0x1000)
        #expect(batch.nextPageFault() == nil)
        guard case .unmap = batch.next() else { throw Unexpected() }
        #expect(batch.nextPageFault()?.address == 0x2000)
        #expect(batch.nextPageFault() == nil)
        #expect(batch.isEmpty == true)
    }

    @Test func forksThatNobodyTakesAreClosed() throws {
        let taken = Watched(), dropped = Watched(), left = Watched()
        do {
            var batch = Self.batch(
                [taken.number, dropped.number, left.number].map {
                    Self.message(CUFFD_EVENT_FORK, (UInt64($0), 0, 0))
                })
            guard case .fork(let child) = batch.next() else { throw Unexpected() }
            #expect(child.isNegotiated == true)
            let released = child.release()
            #expect(released == taken.number)
            // Taken and dropped: the event owns its descriptor.
            do { _ = batch.next() }
            #expect(dropped.isClosed == true)
            #expect(left.isClosed == false)
        }
        #expect(left.isClosed == true)
        #expect(taken.isClosed == false)
        cuffd_close(taken.number)
    }

    @Test func refillingClosesWhatWasLeft() throws {
        let left = Watched()
        var batch = Self.batch([Self.message(CUFFD_EVENT_FORK, (UInt64(left.number), 0, 0))])
        let answer = batch.refill(inheriting: .init()) { _ in -11 }
        #expect(answer == -11)
        #expect(batch.count == 0)
        #expect(left.isClosed == true)
    }

    /// Whatever 32 bytes come: an event, and no trap.
    ///
    /// Fork messages that name a descriptor are left out, because closing it is right.
    @Test func arbitraryMessagesNeverTrap() {
        var random = SplitMix(seed: 0x5EED)
        let events: [UInt64] = [
            CUFFD_EVENT_PAGEFAULT, CUFFD_EVENT_FORK, CUFFD_EVENT_REMAP, CUFFD_EVENT_REMOVE, CUFFD_EVENT_UNMAP,
        ]
        let edges: [UInt64] = [0, 1, 4095, .max, .max - 1, .max - 4095, 1 << 63, (1 << 63) - 1]
        func word() -> UInt64 {
            let value = random.next()
            return value & 1 == 0 ? edges[Int(value >> 1 & 7)] : random.next()
        }
        var sum: UInt = 0
        for _ in 0..<50_000 {
            let event = random.next() & 7 < 5 ? events[Int(random.next() % 5)] : random.next() & 0xFF
            var message = Self.message(event, (word(), word(), word()))
            if event == CUFFD_EVENT_FORK { message.arg.fork.ufd |= 1 << 31 }
            var batch = Self.batch([message])
            switch batch.next() {
            case .pagefault(let fault):
                sum &+= fault.page(size: .base).start &+ fault.page(size: .oneGiB).end
                sum &+= UInt(fault.description.utf8.count)
            case .remap(let from, _, _): sum &+= from
            case .remove(let range): sum &+= range.end
            case .unmap(let range): sum &+= range.end &+ UInt(range.description.utf8.count)
            case .unknown(let event): sum &+= UInt(event.number)
            case .fork: Issue.record("no descriptor, no fork")
            case nil: Issue.record("a message came, so there is an event")
            }
        }
        #expect(sum != 0)
    }

    @Test func aBatchNeedsRoom() async {
        await #expect(processExitsWith: .failure) { _ = EventBatch(capacity: identity(0)) }
    }
}

struct Unexpected: Error {}

/// A small generator with a seed, so that a failure can be repeated.
struct SplitMix {
    private var state: UInt64
    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var value = state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}
