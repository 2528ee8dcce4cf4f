import Glibc
import Synchronization
import SystemPackage
import Testing

@testable import UserfaultFD

/// The system layer, without a userfaultfd.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct SystemTests {
    @Test func anAnswerIsAValueOrAnError() throws {
        #expect(try answer(to: .map) { 7 as CInt } == 7)
        expectFailure(.map, .noMemory, .noMemory) { () throws(UserfaultError) in
            try answer(to: .map) { -Errno.noMemory.rawValue }
        }
        var calls = 0
        let value = try answer(to: .openFile, retryOnInterrupt: true) { () -> Int in
            calls += 1
            return calls < 3 ? -Int(Errno.interrupted.rawValue) : 5
        }
        #expect(value == 5 && calls == 3)
        calls = 0
        expectFailure(.close, .interrupted, .interrupted) { () throws(UserfaultError) in
            try answer(to: .close) { () -> Int in
                calls += 1
                return -Int(Errno.interrupted.rawValue)
            }
        }
        #expect(calls == 1)
    }

    @Test func transfersGoOnAndKeepTheirProgress() throws {
        var offsets: [Int] = []
        try transferAll(10, .writeFile) { done in
            offsets.append(done)
            return offsets.count == 2 ? -Int(Errno.interrupted.rawValue) : 4
        }
        #expect(offsets == [0, 4, 4, 8])
        expectFailure(.writeFile, .noSpace, .noMemory, bytes: 4) { () throws(UserfaultError) in
            try transferAll(10, .writeFile) { done in done == 0 ? 4 : -Int(Errno.noSpace.rawValue) }
        }
        expectFailure(.readFile, .noData, .other, bytes: 0) { () throws(UserfaultError) in
            try transferAll(10, .readFile) { _ in 0 }
        }
    }

    @Test func threadsRunAndAreJoined() throws {
        final class Seen: Sendable {
            let id = Atomic<Int32>(0)
            let change = FutexWord()
        }
        let seen = Seen()
        let thread = try NativeThread("a name that is longer than fifteen bytes") {
            seen.id.store(NativeThread.currentID, ordering: .releasing)
            seen.change.wait(while: 0, until: .never)
        }
        #expect(eventually { seen.id.load(ordering: .acquiring) != 0 })
        #expect(thread.join(until: Deadline(after: .milliseconds(1))) == false)
        let id = seen.id.load(ordering: .acquiring)
        #expect(ProcFile.text("/proc/self/task/\(id)/comm") == "a name that is \n")
        // Signals that others send are blocked; its own faults are not.
        let status = ProcFile.text("/proc/self/task/\(id)/status") ?? ""
        let blocked = ProcFile.value(of: "SigBlk:", in: status).flatMap { UInt64($0, radix: 16) } ?? 0
        #expect(blocked & 1 << (15 - 1) != 0 && blocked & 1 << (7 - 1) == 0 && blocked & 1 << (11 - 1) == 0)
        seen.change.signal()
        #expect(thread.join(until: Deadline(after: .seconds(20))) == true)
    }

    @Test func threadsStayWhereTheyAreKept() throws {
        let own = ProcessorSet()
        let processor = try #require(own.processors.last)
        final class Box: Sendable { let value = Atomic<Int>(-1) }
        let box = Box()
        let thread = try NativeThread("kept", processors: ProcessorSet(processor)) {
            box.value.store(ProcessorSet.current, ordering: .releasing)
        }
        #expect(thread.join(until: Deadline(after: .seconds(20))))
        #expect(box.value.load(ordering: .acquiring) == processor)
        #expect(ProcessorSet(1 << 20).count == 0 && own.contains(processor))
    }

    @Test func threadsThatCannotBeMadeAreAnError() {
        expectFailure(.createThread, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
            try NativeThread("tiny", stackSize: 1) {}
        }
    }

    @Test func aChangeIsNeverMissed() throws {
        final class Box: Sendable {
            let word = FutexWord()
            let value = Atomic<Int>(0)
        }
        let box = Box()
        let waiter = Worker { () -> Int in
            while true {
                let changes = box.word.changes
                let value = box.value.load(ordering: .acquiring)
                if value == 1000 { return value }
                box.word.wait(while: changes, until: .never)
            }
        }
        for _ in 0..<1000 {
            box.value.add(1, ordering: .acquiringAndReleasing)
            box.word.signal()
        }
        #expect(try waiter.value() == 1000)
    }

    @Test func aWaitForAChangeEndsAtItsDeadline() {
        let word = FutexWord()
        let deadline = Deadline(after: .milliseconds(50))
        var waits = 0
        while !deadline.hasPassed {
            word.wait(while: word.changes, until: deadline)
            waits += 1
        }
        // It sleeps, and does not come back at once each time.
        #expect(waits < 1000)
        word.wait(while: word.changes &+ 1, until: .never)
    }

    @Test func socketsListenAndConnect() throws {
        let path = "/tmp/uffd-test-\(NativeThread.currentID).socket"
        defer { unlink(path) }
        let listener = try UnixSocket.listen(at: path)
        let client = try UnixSocket.connect(to: path)
        let server = try UnixSocket.accept(from: listener)
        let hello: [UInt8] = [1, 2, 3]
        try DescriptorPassing.send(
            hello.span.bytes, descriptors: [], over: FileDescriptor(rawValue: client.rawValue))
        let message = try DescriptorPassing.receive(from: FileDescriptor(rawValue: server.rawValue))
        #expect(message.payload == hello)
        expectFailure(.socket, .addressInUse, .other) { () throws(UserfaultError) in try UnixSocket.listen(at: path) }
        expectFailure(.socket, .fileNameTooLong, .other) { () throws(UserfaultError) in
            try UnixSocket.connect(to: String(repeating: "x", count: 200))
        }
    }

    @Test(arguments: [1, 8]) func locksLetReadersInTogether(parts: Int) throws {
        final class Shared: Sendable {
            let lock: ReadWriteLock
            let inside = Atomic<Int>(0)
            init(parts: Int) throws { lock = try ReadWriteLock(parts: parts) }
        }
        let shared = try Shared(parts: parts)
        // A second reader comes in while the first one is there.
        shared.lock.lockForReading()
        let reader = Worker { shared.lock.withReadLock { 7 } }
        #expect(try reader.value() == 7)
        // A writer does not.
        let writer = Worker { shared.lock.withWriteLock { shared.inside.store(1, ordering: .releasing) } }
        for _ in 0..<1000 { NativeThread.yield() }
        #expect(shared.inside.load(ordering: .acquiring) == 0)
        shared.lock.endReading()
        try writer.value()
        #expect(shared.inside.load(ordering: .acquiring) == 1)
    }
}
