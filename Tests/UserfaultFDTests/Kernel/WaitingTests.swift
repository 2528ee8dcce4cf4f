import CTestSupport
import Glibc
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    /// Waits that can be stopped, sets of descriptors, and processes that end.
    @Suite struct Waiting {
        @Test func aStopEndsAWait() throws {
            let uffd = Shared(try UserfaultFD())
            let stop = SharedEvent(try EventFD())
            let waiter = Worker { try? uffd.value.poll(stop: stop.value) }
            stop.value.signal()
            #expect(try waiter.value() == .stopped)
            // It stays signalled until it is cleared.
            #expect(try uffd.value.poll(stop: stop.value) == .stopped)
            #expect(stop.value.clear() == true)
            #expect(stop.value.clear() == false)
            #expect(try uffd.value.poll(timeout: .zero, stop: stop.value) == .timedOut)
        }

        @Test func messagesEndAWaitToo() throws {
            let guarded = try Guarded(pages: 1), start = guarded.start
            let stop = try EventFD()
            let toucher = Worker { load(start) }
            #expect(try guarded.uffd.poll(timeout: .seconds(10), stop: stop) == .messages)
            try guarded.uffd.zeropage(guarded.range)
            #expect(try toucher.value() == 0)
        }

        @Test func aClosedDescriptorIsAnError() async {
            await #expect(processExitsWith: .success) {
                let uffd = try UserfaultFD.closed()
                expectFailure(.poll, .badFileDescriptor, .badDescriptor) { () throws(UserfaultError) in
                    _ = try uffd.poll(timeout: .seconds(1))
                }
                _ = uffd.release()
            }
        }

        /// A limit that does not fit the clock is no short limit.
        @Test(arguments: [
            Duration.seconds(18_446_744_073), .nanoseconds(Int64.max), .seconds(Int64.max), .milliseconds(Int64.max),
        ])
        func longLimitsDoNotWrap(timeout: Duration) throws {
            let deadline = Deadline(after: timeout)
            #expect(!deadline.hasPassed)
            #expect(deadline.isNever || deadline.remainingMilliseconds == .max)
            // An hour at the least, whatever the clock says.
            #expect(deadline.instant.nanoseconds > MonotonicInstant.now.nanoseconds + 3_600_000_000_000)
        }

        @Test func limitsInThePastHavePassed() throws {
            #expect(Deadline(after: .seconds(-5)).hasPassed)
            #expect(Deadline(after: .zero).remainingMilliseconds == 0)
            #expect(try UserfaultFD().poll(timeout: .seconds(-1)) == false)
            #expect(Deadline.never.remainingMilliseconds == -1 && Deadline.never.remainingNanoseconds == -1)
        }

        @Test func aSetTellsWhichIsReady() throws {
            let first = try Guarded(pages: 1), second = try Guarded(pages: 1), start = second.start
            let stop = try EventFD()
            let set = try PollSet()
            try set.add(first.uffd, token: 1)
            try set.add(second.uffd, token: 2)
            try set.add(stop, token: 3)
            var batch = ReadyBatch(capacity: 4)
            #expect(try set.wait(into: &batch, timeout: .zero) == 0)
            #expect(batch.next() == nil)
            let toucher = Worker { load(start) }
            #expect(try set.wait(into: &batch, timeout: .seconds(10)) == 1)
            #expect(batch.next() == PollSet.Ready(token: 2, readiness: .readable))
            stop.signal()
            #expect(try set.wait(into: &batch, timeout: .seconds(10)) == 2)
            var tokens = Set<UInt64>()
            while let ready = batch.next() { tokens.insert(ready.token) }
            #expect(tokens == [2, 3])
            try set.remove(second.uffd)
            #expect(try set.wait(into: &batch, timeout: .seconds(10)) == 1)
            try second.uffd.zeropage(second.range)
            #expect(try toucher.value() == 0)
        }

        @Test func aSetRefusesWhatItHasAndWhatItHasNot() throws {
            let uffd = try UserfaultFD()
            let set = try PollSet()
            expectFailure(.pollSet, .noSuchFileOrDirectory, .other) { () throws(UserfaultError) in
                try set.remove(uffd)
            }
            try set.add(uffd, token: 1)
            expectFailure(.pollSet, .fileExists, .other) { () throws(UserfaultError) in
                try set.add(uffd, token: 2)
            }
            let blocking = try UserfaultFD(options: .init(nonBlocking: false))
            try set.add(blocking, token: 3)
            var batch = ReadyBatch(capacity: 1)
            #expect(try set.wait(into: &batch, timeout: .seconds(10)) == 1)
            #expect(batch.next()?.readiness.contains(.error) == true)
        }

        @Test func aProcessIsWatched() throws {
            let pid = cts_fork_waiting()
            let process = try ProcessHandle(id: pid)
            #expect(process.hasExited == false)
            #expect(try process.waitForExit(timeout: .zero) == false)
            let set = try PollSet()
            try set.add(process, token: 9)
            try process.kill()
            var batch = ReadyBatch(capacity: 1)
            #expect(try set.wait(into: &batch, timeout: .seconds(20)) == 1)
            #expect(batch.next()?.token == 9)
            #expect(try process.waitForExit(timeout: .seconds(20)) == true)
            #expect(process.hasExited == true)
            #expect(cts_wait(pid) == -9)
            expectFailure(.signalProcess, .noSuchProcess, .processGone) { () throws(UserfaultError) in
                try process.kill()
            }
            expectFailure(.openProcess, .noSuchProcess, .processGone) { () throws(UserfaultError) in
                try ProcessHandle(id: pid)
            }
        }

        @Test func thePeerIsAProcess() throws {
            var owner = cts_owner()
            try #require(cts_owner_start(&owner) == 0)
            let socket = FileDescriptor(rawValue: owner.socket)
            // The pair was made here, before the fork.
            let peer = try ProcessHandle(peerOf: socket)
            #expect(peer.hasExited == false)
            let process = try ProcessHandle(id: owner.pid)
            let arrived = try Arrived(over: socket)
            let number = try process.duplicateDescriptor(0)
            #expect(Descriptors.isCloseOnExec(number))
            close(number)
            expectFailure(.takeDescriptor, .badFileDescriptor, .badDescriptor) { () throws(UserfaultError) in
                try process.duplicateDescriptor(9999)
            }
            #expect(arrived.userfaultFD.isProcessGone == false)
            _ = cts_owner_end(&owner, 1)
        }

        /// Since Linux 6.13 the kernel takes any advice about the caller's own memory.
        @Test func adviceThatDestroysIsRefused() throws {
            let memory = try Mapping(anonymous: page)
            store(7, at: memory.range.start)
            let own = try ProcessHandle.current()
            for advice in [Advice.dontNeed, .free, .remove, .guardInstall, .wipeOnFork, .hardwarePoison, .dontFork] {
                expectFailure(.adviseProcess, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try own.advise(advice, memory.range)
                }
            }
            #expect(load(memory.range.start) == 7)
        }

        @Test func aDirectoryOfProcIsNoProcess() throws {
            let directory = open("/proc/self", O_RDONLY | O_DIRECTORY)
            expectFailure(.openProcess, .badFileDescriptor, .badDescriptor) { () throws(UserfaultError) in
                try ProcessHandle(adopting: directory)
            }
            #expect(close(directory) == 0)
        }

        @Test func nobodyIsNoPeer() throws {
            let lonely = FileDescriptor(rawValue: socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0))
            defer { try? lonely.close() }
            expectFailure(.peerCredentials, .socketNotConnected, .other) { () throws(UserfaultError) in
                try PeerCredentials(of: lonely)
            }
            #expect(throws: UserfaultError.self) { _ = try ProcessHandle(peerOf: lonely).hasExited }
        }

        @Test func adviceForAnotherProcess() throws {
            let memory = try Mapping(anonymous: page)
            store(1, at: memory.range.start)
            let pid = cts_fork_waiting()
            let process = try ProcessHandle(id: pid)
            #expect(try process.advise(.cold, memory.range) == page)
            _ = cts_kill(pid)
        }

        final class Shared: Sendable {
            let value: UserfaultFD
            init(_ value: consuming UserfaultFD) { self.value = value }
        }

        final class SharedEvent: Sendable {
            let value: EventFD
            init(_ value: consuming EventFD) { self.value = value }
        }
    }
}
