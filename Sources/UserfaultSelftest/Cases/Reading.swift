import CSelftestSupport
import CUserfaultFD
import Glibc
import Synchronization
import SystemPackage
import UserfaultFD

/// read(2) of messages: what comes in which order, in what form, and to whom.
enum ReadingCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "read-size", "a buffer holds as many whole messages as fit; none is EINVAL and loses nothing",
            requires: [.threads(10)], covers: [.reading]
        ) { _ in
            let guarded = try GuardedMemory(pages: 5)
            let touches = try guarded.touch(0..<5)
            for size in [0, 1, 16, 31] {
                try expectErrno(guarded.uffd.rawRead(size).errno, .invalidArgument, "read of \(size) bytes")
            }
            try guarded.uffd.expectWaiters(pending: 5, total: 5, "after reads that were too short")
            var next = 0
            for (size, count) in [(32, 1), (63, 1), (100, 3)] {
                let reading = guarded.uffd.rawRead(size)
                try expectEqual(reading.count, count * 32, "bytes read into \(size), errno \(reading.errno)")
                for index in 0..<count {
                    try expectEqual(reading.address(index), guarded.address(next), "address of message \(next)")
                    next += 1
                }
                try expect(
                    reading.bytes.dropFirst(count * 32).allSatisfy { $0 == RawReading.untouched },
                    "the rest of a buffer of \(size) bytes is untouched")
                try guarded.uffd.expectWaiters(pending: 5 - next, total: 5, "after \(next) messages")
            }
            try guarded.release(touches)
        },
        SelftestCase(
            "read-form", "a message says what it must, and every other byte of it is zero", covers: [.reading]
        ) { _ in
            let guarded = try GuardedMemory(pages: 2)
            let touches = [try Touch.read(guarded.address(0) + 99)]
            try guarded.uffd.waitBlocked(1)
            var reading = guarded.uffd.rawRead(32)
            try expectEqual(reading.word(0), CUFFD_EVENT_PAGEFAULT, "first word: the event, and zeros")
            try expectEqual(reading.word(8), 0, "flags")
            try expectEqual(reading.word(16), UInt64(guarded.address(0)), "address")
            try expectEqual(reading.word(24), 0, "last word: no thread id without THREAD_ID, and zeros")
            let write = try Touch.write(guarded.address(1) + 99, 1)
            try guarded.uffd.waitBlocked(2)
            reading = guarded.uffd.rawRead(32)
            try expectEqual(reading.word(0), CUFFD_EVENT_PAGEFAULT, "first word of a write's message")
            try expectEqual(reading.word(8), CUFFD_PAGEFAULT_FLAG_WRITE, "flags of a write's message")
            try expectEqual(reading.word(16), UInt64(guarded.address(1)), "address of a write's message")
            try expectEqual(reading.word(24), 0, "last word of a write's message")
            try guarded.release(touches + [write])
        },
        SelftestCase(
            "read-nothing", "a non-blocking read without messages is EAGAIN and writes nothing",
            covers: [.reading]
        ) { context in
            let guarded = try GuardedMemory(pages: 2)
            for size in [32, 320] {
                let reading = guarded.uffd.rawRead(size)
                try expectErrno(reading.errno, .resourceTemporarilyUnavailable, "read without messages")
                try expect(
                    reading.bytes.allSatisfy { $0 == RawReading.untouched }, "the buffer is untouched")
            }
            // A message is given once, although its thread still waits.
            let touches = try guarded.touch(1..<2)
            try expectEqual(guarded.uffd.rawRead(32).count, 32, "bytes of the message")
            try expectErrno(
                guarded.uffd.rawRead(32).errno, .resourceTemporarilyUnavailable, "read after the message was read")
            try guarded.uffd.expectWaiters(pending: 0, total: 1, "after the message was read")
            try guarded.release(touches)
        },
        SelftestCase(
            "read-vectors", "readv fills one buffer after another, and RWF_NOWAIT never waits",
            requires: [.threads(10)], covers: [.reading]
        ) { context in
            let guarded = try GuardedMemory(pages: 6)
            let touches = try guarded.touch(0..<5)
            var reading = guarded.uffd.rawRead(64) { css_readv2($0, $1, 32, $1 + 32, 32) }
            try expectEqual(reading.count, 64, "bytes of readv into two buffers of one message")
            try expectEqual(
                [reading.address(0), reading.address(1)], [guarded.address(0), guarded.address(1)], "addresses by readv"
            )

            // Since Linux 6.10 a message may be spread over buffers; before, each was a read of its own.
            reading = guarded.uffd.rawRead(64) { css_readv2($0, $1, 20, $1 + 20, 44) }
            try expectOne(of: [64, 0], reading.count, "bytes of readv into two uneven buffers")
            let isSpread = reading.count == 64
            if isSpread {
                try expectEqual(
                    [reading.address(0), reading.address(1)], [guarded.address(2), guarded.address(3)],
                    "addresses of messages spread over buffers")
            } else {
                try expectErrno(reading.errno, .invalidArgument, "readv into a short first buffer")
            }
            try guarded.uffd.expectWaiters(pending: isSpread ? 1 : 3, total: 5, "after readv")
            context.record("messages may \(isSpread ? "" : "not ")be spread over buffers")

            try guarded.uffd.setNonBlocking(false)
            var next = isSpread ? 4 : 2
            while next <= 5 {
                reading = guarded.uffd.rawRead(32) { css_read_nowait($0, $1, 32) }
                if reading.errno == EOPNOTSUPP {
                    try expect(!isSpread, "RWF_NOWAIT is supported where messages can be spread over buffers")
                    context.record("this kernel has no RWF_NOWAIT for userfaultfd")
                    break
                }
                try expect(isSpread, "RWF_NOWAIT and spreading came together")
                if next < 5 {
                    try expectEqual(reading.count, 32, "bytes by RWF_NOWAIT")
                    try expectEqual(reading.address(0), guarded.address(next), "address by RWF_NOWAIT")
                } else {
                    try expectErrno(
                        reading.errno, .resourceTemporarilyUnavailable, "RWF_NOWAIT without messages, in blocking mode")
                }
                next += 1
            }
            try guarded.release(touches)
        },
        SelftestCase(
            "read-blocking", "a blocking read waits for the first message, and takes all that there are then",
            covers: [.reading]
        ) { _ in
            let guarded = try GuardedMemory(pages: 3)
            try guarded.uffd.setNonBlocking(false)
            let touches = try guarded.touch(0..<2)
            try expectEqual(guarded.uffd.rawRead(320).count, 64, "bytes of a read with two messages there")
            let reader = try BackgroundCall { guarded.uffd.rawRead(320).count }
            try reader.thread.waitAsleep()
            try reader.thread.expectStillAsleep("there is no message")
            let last = try Touch.read(guarded.address(2))
            try expectEqual(reader.finish(), 32, "bytes that the blocked read brings")
            try guarded.release(touches + [last])
        },
        SelftestCase(
            "read-interrupted", "a signal ends a blocking read with EINTR, unless its handler restarts system calls",
            covers: [.reading, .signals]
        ) { _ in
            let guarded = try GuardedMemory(pages: 1, options: .init(nonBlocking: false))
            for restarts in [false, true] {
                try checked(css_catch_signal(restarts))
                let before = css_signals_caught()
                let reader = try BackgroundCall {
                    _ = css_unblock_signal()
                    return guarded.uffd.rawRead(32)
                }
                try reader.thread.waitAsleep()
                try checked(css_signal_thread(reader.thread.threadID))
                try Waiting.until("the handler runs") { css_signals_caught() == before + 1 }
                if !restarts {
                    try expectErrno(reader.finish().errno, .interrupted, "an interrupted read")
                    continue
                }
                try reader.thread.waitAsleep()
                try reader.thread.expectStillAsleep("the read was restarted")
                let touch = try Touch.read(guarded.address(0))
                try expectEqual(reader.finish().count, 32, "bytes of a restarted read")
                try guarded.release([touch])
            }
        },
        SelftestCase(
            "read-bad-buffer",
            "a message that cannot be stored is EFAULT and lost, its thread waits on, and a wake-up brings it again",
            covers: [.reading]
        ) { _ in
            let guarded = try GuardedMemory(pages: 4)
            let touches = try guarded.touch(0..<3)
            let page = PageSize.base.bytes
            let buffer = try Mapping(anonymous: 2 * page)
            try buffer.protect(.none, buffer.page(1))
            let bad = buffer.page(1).start
            func read(_ address: UInt, _ count: Int) -> Int {
                guarded.uffd.withUnsafeDescriptor {
                    css_read($0.rawValue, UnsafeMutableRawPointer(bitPattern: address), count)
                }
            }
            try expectEqual(read(bad, 64), -Int(EFAULT), "answer of a read into inaccessible memory")
            try guarded.uffd.expectWaiters(pending: 2, total: 3, "after one message was lost")
            // What was stored before the bad address is answered.
            try expectEqual(read(bad - 32, 64), 32, "answer of a read into half accessible memory")
            try guarded.uffd.expectWaiters(pending: 0, total: 3, "after another message was lost")
            try guarded.uffd.expectNoMessage("lost messages do not come by themselves")
            for touch in touches { try touch.thread.expectStillAsleep("its page is missing") }

            try guarded.uffd.wake(guarded.page(0))
            try guarded.uffd.expectFault(at: guarded.address(0), [])
            try guarded.uffd.wake(guarded.page(2))
            try guarded.uffd.expectFault(at: guarded.address(2), [])
            try guarded.release(touches)
        },
        SelftestCase(
            "read-shared", "each message goes to one of several readers, and to one only", requires: [.threads(28)],
            covers: [.reading]
        ) { _ in
            let count = 16
            let guarded = try GuardedMemory(pages: count)
            let touches = try guarded.touch(0..<count)
            let seen = SeenAddresses()
            let readers = try (0..<3).map { _ in
                try BackgroundCall {
                    while true {
                        let reading = guarded.uffd.rawRead(96)
                        guard reading.count > 0 else { return reading.errno }
                        seen.add((0..<reading.count / 32).map { reading.address($0) })
                    }
                }
            }
            for reader in readers {
                try expectErrno(reader.finish(), .resourceTemporarilyUnavailable, "the last read of each reader")
            }
            try expectEqual(
                seen.sorted, (0..<count).map { guarded.address($0) }, "addresses that all readers together have seen")
            try guarded.release(touches)
        },
        SelftestCase(
            "read-faults-first", "page faults are read before other events, though these came earlier",
            requires: [.features(.eventRemove)], covers: [.reading, .polling]
        ) { _ in
            let guarded = try GuardedMemory(pages: 4, features: .eventRemove)
            try guarded.uffd.zeropage(guarded.page(0))
            let call = try BackgroundCall { try guarded.memory.advise(.dontNeed, guarded.page(0)) }
            try call.waitBlocked()
            try expectEqual(guarded.uffd.rawPoll(), Int32(CUFFD_POLLIN), "poll with an event that is no fault")
            let touches = try guarded.touch(1..<3)
            let reading = guarded.uffd.rawRead(128)
            try expectEqual(reading.count, 96, "bytes of two faults and an event")
            try expectEqual(
                [0, 32, 64].map { reading.word($0) },
                [CUFFD_EVENT_PAGEFAULT, CUFFD_EVENT_PAGEFAULT, CUFFD_EVENT_REMOVE], "order of the events")
            try expectEqual(
                [reading.address(0), reading.address(1)], (1..<3).map { guarded.address($0) }, "order of the faults")
            try expectEqual(reading.word(72), UInt64(guarded.address(0)), "start of what is removed")
            try expectEqual(reading.word(80), UInt64(guarded.page(0).end), "end of what is removed")
            try expectEqual(reading.word(88), 0, "last word of the event")
            try call.finish()
            try guarded.release(touches)
        },
    ]

    private final class SeenAddresses: Sendable {
        private let addresses = Mutex<[UInt]>([])
        func add(_ more: [UInt]) { addresses.withLock { $0 += more } }
        var sorted: [UInt] { addresses.withLock { $0.sorted() } }
    }
}
