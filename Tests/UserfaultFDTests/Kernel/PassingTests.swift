import CTestSupport
import Glibc
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    @Suite struct Passing {
        static let hello = Array("hello".utf8)

        @Test func aUserfaultfdArrivesWithItsPayload() throws {
            let sockets = SocketPair()
            let uffd = try UserfaultFD(features: .threadID)
            try uffd.send(over: sockets.first, payload: Self.hello.span.bytes)
            let received = try Arrived(over: sockets.second)
            #expect(received.payload == Self.hello)
            let theirs = received.take()
            #expect(theirs.enabledFeatures == .threadID)
            #expect(theirs.supportedFeatures == uffd.supportedFeatures)
            try theirs.withUnsafeDescriptor { descriptor throws in
                #expect(Descriptors.isCloseOnExec(descriptor.rawValue))
            }
            // The sender's stays the sender's.
            #expect(try uffd.status().isNegotiated == true)
        }

        @Test func anotherProcessIsServed() throws {
            var owner = cts_owner()
            try #require(cts_owner_start(&owner) == 0)
            let socket = FileDescriptor(rawValue: owner.socket)
            #expect(try PeerCredentials(of: socket).user == geteuid())
            let received = try Arrived(over: socket)
            let address = UInt(received.payload.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) })
            let uffd = received.take()
            #expect(try uffd.nextFault().address == address)
            if uffd.supportedFeatures.contains(.move) {
                let source = try Mapping(anonymous: page, options: .populate)
                expectFailure(.move, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try uffd.move(from: source.range.start, to: AddressRange(start: address, count: page))
                }
            }
            try uffd.copy(pattern(77).span.bytes, to: AddressRange(start: address, count: page))
            #expect(cts_owner_end(&owner, 0) == 77)
        }

        @Test func aProcessThatIsGone() throws {
            var owner = cts_owner()
            try #require(cts_owner_start(&owner) == 0)
            let received = try Arrived(over: FileDescriptor(rawValue: owner.socket))
            let address = UInt(received.payload.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) })
            let uffd = received.take()
            let range = AddressRange(start: address, count: page)
            #expect(cts_owner_end(&owner, 1) == -9)

            let contents = pattern(1)
            expectFailure(.copy, .noSuchProcess, .processGone) { () throws(UserfaultError) in
                try uffd.copy(contents.span.bytes, to: range)
            }
            expectFailure(.zeropage, .noSuchProcess, .processGone) { () throws(UserfaultError) in
                try uffd.zeropage(range)
            }
            expectFailure(.writeProtect, .noSuchProcess, .processGone) { () throws(UserfaultError) in
                try uffd.writeProtect(range, .unprotect)
            }
            if uffd.supportedFeatures.contains(.minorShmem) {
                expectFailure(.continue, .noSuchProcess, .processGone) { () throws(UserfaultError) in
                    try uffd.continue(range)
                }
            }
            if uffd.supportedFeatures.contains(.poison) {
                expectFailure(.poison, .noSuchProcess, .processGone) { () throws(UserfaultError) in
                    try uffd.poison(range)
                }
            }
            if uffd.supportedFeatures.contains(.readWriteProtect) {
                expectFailure(.rwProtect, .noSuchProcess, .processGone) { () throws(UserfaultError) in
                    try uffd.rwProtect(range, .unprotect)
                }
                expectFailure(.setMode, .noSuchProcess, .processGone) { () throws(UserfaultError) in
                    try uffd.setMode()
                }
            }
            expectFailure(.register, .noMemory, .noMemory) { () throws(UserfaultError) in
                try uffd.register(range, modes: .missing)
            }
            expectFailure(.unregister, .noMemory, .noMemory) { () throws(UserfaultError) in
                try uffd.unregister(range)
            }
            try uffd.wake(range)
            var batch = EventBatch(capacity: 1)
            #expect(try uffd.read(into: &batch) == 0)
        }

        @Test func surplusDescriptorsAreClosed() throws {
            let sockets = SocketPair()
            let uffd = try UserfaultFD()
            let surplus = Watched()
            try uffd.withUnsafeDescriptor { descriptor throws in
                try DescriptorPassing.send(
                    Self.hello.span.bytes,
                    descriptors: [descriptor] + Array(repeating: FileDescriptor(rawValue: surplus.number), count: 20),
                    over: sockets.first)
            }
            close(surplus.number)
            #expect(surplus.isClosed == false)
            let received = try Arrived(over: sockets.second)
            #expect(received.payload == Self.hello)
            #expect(surplus.isClosed == true)
        }

        @Test func manyDescriptorsArriveInOrder() throws {
            let sockets = SocketPair()
            let watched = Watched()
            let descriptor = FileDescriptor(rawValue: watched.number)
            try DescriptorPassing.send(
                Self.hello.span.bytes, descriptors: Array(repeating: descriptor, count: DescriptorPassing.limit),
                over: sockets.first)
            close(watched.number)
            do {
                let message = try DescriptorPassing.receive(from: sockets.second)
                #expect(message.payload == Self.hello)
                var descriptors = message.takeDescriptors()
                #expect(descriptors.count == DescriptorPassing.limit)
                let first = descriptors.takeFirst()
                #expect(descriptors.count == DescriptorPassing.limit - 1)
                if let first { close(first) }
            }
            #expect(watched.isClosed == true)
        }

        @Test func truncatedMessagesAreNoticedAndClosed() async {
            await #expect(processExitsWith: .success) {
                let sockets = SocketPair()
                let watched = Watched()
                #expect(cts_send(sockets.first.rawValue, "x", 1, watched.number, 8) == 1)
                close(watched.number)
                // Room for some of the eight, not for all.
                let free = dup(0)
                close(free)
                let before = cts_limit_descriptors(Int(free) + 3)
                do {
                    // The payload is not lost with them: the stream stays in step.
                    let message = try DescriptorPassing.receive(from: sockets.second)
                    #expect(message.isMissingDescriptors == true)
                    #expect(message.payload == Array("x".utf8))
                    #expect(message.descriptors.count < 8)
                }
                _ = cts_limit_descriptors(before)
                #expect(watched.isClosed == true)
            }
        }

        @Test func messagesWithoutADescriptor() throws {
            let sockets = SocketPair()
            try DescriptorPassing.send(Self.hello.span.bytes, descriptors: [], over: sockets.first)
            expectFailure(.receive, .badFileDescriptor, .noDescriptor) { () throws(UserfaultError) in
                try Arrived(over: sockets.second)
            }
        }

        @Test func descriptorsThatAreNoUserfaultfd() throws {
            let sockets = SocketPair()
            let watched = Watched()
            #expect(cts_send(sockets.first.rawValue, "x", 1, watched.number, 1) == 1)
            close(watched.number)
            expectFailure(.adopt, .inappropriateIOCTLForDevice, .notUserfaultFD) { () throws(UserfaultError) in
                try Arrived(over: sockets.second)
            }
            #expect(watched.isClosed == true)
        }

        @Test func aPeerThatIsGone() async {
            await #expect(processExitsWith: .success) {
                let sockets = SocketPair()
                close(sockets.first.rawValue)
                expectFailure(.receive, .badFileDescriptor, .noDescriptor) { () throws(UserfaultError) in
                    try Arrived(over: sockets.second)
                }
                let message = try DescriptorPassing.receive(from: sockets.second)
                #expect(message.payload.isEmpty)
                let uffd = try UserfaultFD()
                expectFailure(.send, .brokenPipe, .peerClosed) { () throws(UserfaultError) in
                    try uffd.send(over: sockets.second, payload: Kernel.Passing.hello.span.bytes)
                }
            }
        }

        @Test func wrongArgumentsAreRefused() throws {
            let sockets = SocketPair()
            expectFailure(.send, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try DescriptorPassing.send([UInt8]().span.bytes, descriptors: [], over: sockets.first)
            }
            let many = [FileDescriptor](repeating: sockets.first, count: DescriptorPassing.limit + 1)
            expectFailure(.send, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try DescriptorPassing.send(Self.hello.span.bytes, descriptors: many, over: sockets.first)
            }
            let none = FileDescriptor(rawValue: 1 << 20)
            expectFailure(.send, .badFileDescriptor, .badDescriptor) { () throws(UserfaultError) in
                try DescriptorPassing.send(Self.hello.span.bytes, descriptors: [none], over: sockets.first)
            }
            expectFailure(.receive, .badFileDescriptor, .badDescriptor) { () throws(UserfaultError) in
                try DescriptorPassing.receive(from: none)
            }
            expectFailure(.peerCredentials, .badFileDescriptor, .badDescriptor) { () throws(UserfaultError) in
                try PeerCredentials(of: none)
            }
        }

        @Test func anEmptySocketWouldBlock() throws {
            let sockets = SocketPair()
            let flags = fcntl(sockets.second.rawValue, F_GETFL)
            #expect(fcntl(sockets.second.rawValue, F_SETFL, flags | O_NONBLOCK) == 0)
            expectFailure(.receive, .resourceTemporarilyUnavailable, .wouldBlock) { () throws(UserfaultError) in
                try DescriptorPassing.receive(from: sockets.second)
            }
        }

        /// Number 0 is a descriptor like any other.
        @Test func descriptorZeroIsOwnedToo() async {
            await #expect(processExitsWith: .success) {
                // The language's runtime opens what it waits with when it first waits.
                try await Task.sleep(for: .milliseconds(1))
                let sockets = SocketPair()
                let uffd = try UserfaultFD()
                close(0)
                try uffd.send(over: sockets.first, payload: Kernel.Passing.hello.span.bytes)
                do {
                    let theirs = try Arrived(over: sockets.second).take()
                    theirs.withUnsafeDescriptor { descriptor in #expect(descriptor.rawValue == 0) }
                }
                #expect(!Descriptors.isOpen(0))
            }
        }
    }
}
