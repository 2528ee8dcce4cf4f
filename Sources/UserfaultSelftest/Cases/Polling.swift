import Glibc
import CUserfaultFD
import SystemPackage
import UserfaultFD

/// poll(2) and epoll(7) on a userfaultfd.
enum PollingCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "poll-readiness", "poll answers POLLIN alone while a message is unread, and nothing else",
            covers: [.polling]
        ) { _ in
            let guarded = try GuardedMemory(pages: 3)
            try expectEqual(guarded.uffd.rawPoll(), 0, "poll before any fault")
            let touches = try guarded.touch(0..<2)
            for unread in [2, 1] {
                // Whatever is asked for: there is no POLLOUT, POLLPRI or POLLHUP.
                try expectEqual(guarded.uffd.rawPoll(), Int32(CUFFD_POLLIN), "poll with \(unread) messages")
                try expectEqual(guarded.uffd.rawPoll(CUFFD_POLLIN), Int32(CUFFD_POLLIN), "poll with \(unread) messages")
                try expectEqual(guarded.uffd.rawPoll(4), 0, "poll for POLLOUT with \(unread) messages")
                try expectEqual(guarded.uffd.rawRead(32).count, 32, "bytes of a message")
            }
            try expectEqual(guarded.uffd.rawPoll(), 0, "poll when all is read, with threads still waiting")
            try guarded.uffd.wake(guarded.page(1))
            try guarded.uffd.waitBlocked(2)
            try Waiting.until("the repeated fault shows in poll") { guarded.uffd.rawPoll() == Int32(CUFFD_POLLIN) }
            try guarded.release(touches)
            try expectEqual(guarded.uffd.rawPoll(), 0, "poll when nobody waits any more")
        },
        SelftestCase(
            "poll-blocking-mode", "poll on a descriptor in blocking mode answers POLLERR, until the mode is changed",
            covers: [.polling]
        ) { _ in
            let guarded = try GuardedMemory(pages: 1, options: .init(nonBlocking: false))
            let error = Int32(CUFFD_POLLERR)
            try expectEqual(guarded.uffd.rawPoll(), error, "poll in blocking mode")
            let touches = try guarded.touch(0..<1)
            for _ in 0..<2 {
                try guarded.uffd.setNonBlocking(false)
                try expectEqual(guarded.uffd.rawPoll(), error, "poll in blocking mode with a message")
                try expectEqual(guarded.uffd.rawPoll(0), error, "poll for nothing in blocking mode")
                try guarded.uffd.setNonBlocking(true)
                try expectEqual(guarded.uffd.rawPoll(), Int32(CUFFD_POLLIN), "poll in non-blocking mode with a message")
            }
            try expectEqual(guarded.uffd.rawRead(32).count, 32, "bytes of the message")
            try expectEqual(guarded.uffd.rawPoll(), 0, "poll in non-blocking mode without messages")
            try guarded.uffd.setNonBlocking(false)
            try expectEqual(guarded.uffd.rawPoll(), error, "poll in blocking mode without messages")
            try guarded.release(touches)
        },
        SelftestCase(
            "poll-wakes", "a fault wakes every thread that polls, and the timeout ends the others' wait",
            covers: [.polling]
        ) { _ in
            let guarded = try GuardedMemory(pages: 1)
            try expectEqual(guarded.uffd.rawPoll(CUFFD_POLLIN, milliseconds: 1), 0, "poll that runs out of time")
            let pollers = try (0..<3).map { _ in
                try BackgroundCall { guarded.uffd.rawPoll(CUFFD_POLLIN, milliseconds: -1) }
            }
            for poller in pollers { try poller.thread.waitAsleep() }
            for poller in pollers { try poller.thread.expectStillAsleep("there is no message") }
            let touch = try Touch.read(guarded.address(0))
            for poller in pollers { try expectEqual(poller.finish(), Int32(CUFFD_POLLIN), "what poll waited for") }
            try guarded.release([touch])
        },
        SelftestCase(
            "poll-wakes-for-event", "an event that is no fault wakes those who poll, and a blocking read",
            requires: [.features(.eventRemove)], covers: [.polling]
        ) { _ in
            for polls in [true, false] {
                let guarded = try GuardedMemory(
                    pages: 1, features: .eventRemove, options: .init(nonBlocking: polls))
                let waiter = try BackgroundCall {
                    polls ? guarded.uffd.rawPoll(CUFFD_POLLIN, milliseconds: -1) : Int32(guarded.uffd.rawRead(32).count)
                }
                try waiter.thread.waitAsleep()
                let call = try BackgroundCall { try guarded.memory.advise(.dontNeed) }
                let answer = try waiter.finish(polls ? "poll sees the event" : "read brings the event")
                try expectEqual(answer, polls ? Int32(CUFFD_POLLIN) : 32, "what the waiting thread gets")
                if polls { try expectEqual(guarded.uffd.rawRead(32).count, 32, "bytes of the event") }
                try call.finish()
            }
        },
        SelftestCase(
            "poll-epoll", "epoll reports unread messages for as long as they are there, or once for each new one",
            covers: [.polling]
        ) { _ in
            let guarded = try GuardedMemory(pages: 3)
            let ready = UInt32(CUFFD_POLLIN)
            let level = try Epoll(guarded.uffd, edgeTriggered: false)
            let edge = try Epoll(guarded.uffd, edgeTriggered: true)
            try expectEqual(level.wait(), 0, "level-triggered events before any fault")
            try expectEqual(edge.wait(), 0, "edge-triggered events before any fault")

            var touches = try guarded.touch(0..<1)
            try expectEqual(edge.wait(), ready, "the first edge")
            try expectEqual(edge.wait(), 0, "edge-triggered events with nothing new")
            try expectEqual(level.wait(), ready, "level-triggered events with a message")
            touches += try guarded.touch(1..<2)
            try expectEqual(edge.wait(), ready, "the second edge, with the first message unread")
            try expectEqual(edge.wait(), 0, "edge-triggered events with nothing new")
            for _ in 0..<2 { try expectEqual(level.wait(), ready, "level-triggered events with messages") }
            try expectEqual(guarded.uffd.rawRead(320).count, 64, "bytes of two messages")
            try expectEqual(level.wait(), 0, "level-triggered events when all is read")
            try expectEqual(edge.wait(), 0, "edge-triggered events when all is read")

            touches += try guarded.touch(2..<3)
            try expectEqual(edge.wait(), ready, "an edge after all was read")
            try expectEqual(level.wait(), ready, "level-triggered events with a new message")
            try guarded.uffd.setNonBlocking(false)
            try expectEqual(level.wait(), UInt32(CUFFD_POLLERR), "level-triggered events in blocking mode")
            try guarded.uffd.setNonBlocking(true)
            try guarded.release(touches)
        },
    ]

    /// A descriptor of epoll with one userfaultfd in it.
    private final class Epoll {
        private let descriptor: Int32

        init(_ uffd: borrowing UserfaultFD, edgeTriggered: Bool) throws {
            descriptor = try checked(cuffd_epoll_create())
            try uffd.withUnsafeDescriptor { uffd in
                _ = try checked(cuffd_epoll_add(descriptor, uffd.rawValue, 77, edgeTriggered ? 1 : 0))
            }
        }

        deinit { _ = close(descriptor) }

        /// The events of the userfaultfd, 0 for none.
        func wait(milliseconds: Int32 = 0) throws -> UInt32 {
            var token: UInt64 = 0
            var events: UInt32 = 0
            let count = cuffd_epoll_wait(descriptor, &token, &events, 1, milliseconds)
            if count == 1 { try expectEqual(token, 77, "token of the event") }
            return try checked(count) == 1 ? events : 0
        }
    }
}
