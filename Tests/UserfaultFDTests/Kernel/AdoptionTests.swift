import CTestSupport
import Glibc
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    /// Taking over what others opened: refused without loss, and possible where `/proc` and descriptors are scarce.
    @Suite struct Adoption {
        @Test(arguments: [999, -1, Int32.max, Int32.min])
        func aDescriptorThatIsNotOpenIsRefused(number: Int32) async {
            await #expect(processExitsWith: .success) { [number] in
                expectFailure(.adopt, .badFileDescriptor, .badDescriptor) { () throws(UserfaultError) in
                    try UserfaultFD(adopting: number)
                }
                expectFailure(.adopt, .badFileDescriptor, .badDescriptor) { () throws(UserfaultError) in
                    try UserfaultFD(adopting: number, features: .threadID)
                }
                expectFailure(.fileStatus, .badFileDescriptor, .badDescriptor) { () throws(UserfaultError) in
                    try Memfd(adopting: number)
                }
                expectFailure(.openProcess, .badFileDescriptor, .badDescriptor) { () throws(UserfaultError) in
                    try ProcessHandle(adopting: number)
                }
            }
        }

        /// Its requests have the same letter, and it answers `EINVAL` to those that it does not know.
        @Test(.requiresRoot, .requiresDevice) func theDeviceIsNoUserfaultfd() throws {
            let device = open("/dev/userfaultfd", O_RDWR)
            try #require(device >= 0)
            expectFailure(.adopt, .inappropriateIOCTLForDevice, .notUserfaultFD) { () throws(UserfaultError) in
                try UserfaultFD(adopting: device, features: [])
            }
            #expect(close(device) == 0)
        }

        @Test func onlyMemoryFilesAreMemfds() throws {
            var ends: [Int32] = [-1, -1]
            try #require(pipe(&ends) == 0)
            let directory = open("/", O_RDONLY | O_DIRECTORY)
            let onDisk = open("/proc/self/exe", O_RDONLY)
            for number in ends + [directory, onDisk] {
                expectFailure(.fileStatus, .invalidArgument, .notMemoryFile) { () throws(UserfaultError) in
                    try Memfd(adopting: number)
                }
                #expect(close(number) == 0)
            }
            let file = try Memfd(count: page)
            #expect(try Memfd(adopting: file.release()).status().count == page)
        }

        /// Without `/proc`, and without a descriptor to spare, features that the sender names will do; without them the
        /// descriptor stays where it was.
        @Test(.requiresRoot) func namedFeaturesNeedNeitherProcNorADescriptor() async {
            await #expect(processExitsWith: .success) {
                let sockets = SocketPair()
                do {
                    let uffd = try UserfaultFD(features: .threadID)
                    let hello = Passing.hello
                    try uffd.send(over: sockets.first, payload: hello.span.bytes)
                }
                var message = try DescriptorPassing.receive(from: sockets.second)
                #expect(cts_hide_proc() == 0)
                let free = dup(0)
                close(free)
                let before = cts_limit_descriptors(Int(free))
                expectFailure(.status, .tooManyOpenFiles, .tooManyDescriptors) { () throws(UserfaultError) in
                    try message.descriptors.takeUserfaultFD()
                }
                _ = cts_limit_descriptors(before)
                expectFailure(.status, .noSuchFileOrDirectory, .other) { () throws(UserfaultError) in
                    try message.descriptors.takeUserfaultFD()
                }
                #expect(message.descriptors.count == 1)
                _ = cts_limit_descriptors(Int(free))
                let received = try message.descriptors.takeUserfaultFD(features: .threadID)
                // What the kernel has is not known without a descriptor to spare, so nothing is called unsupported.
                expectFailure(.poison, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try received.poison(AddressRange(start: 1, count: page))
                }
                #expect(received.isNegotiated && received.enabledFeatures == .threadID)
                #expect(received.supportedFeatures.contains(.threadID))
                #expect(message.descriptors.count == 0)
                _ = cts_limit_descriptors(before)
                let memory = try Mapping(anonymous: page)
                try received.register(memory.range, modes: .missing)
                // Sanitizers look into it when the process ends.
                #expect(cts_show_proc() == 0)
            }
        }

        @Test func aNamedFeatureOfADescriptorThatIsNotNegotiatedIsNotEnabled() throws {
            let number = try UserfaultFD(unnegotiated: .init()).release()
            var adopted = try UserfaultFD(adopting: number, features: .threadID)
            #expect(!adopted.isNegotiated && adopted.enabledFeatures.isEmpty)
            try adopted.negotiate(.threadID)
            #expect(adopted.enabledFeatures == .threadID)
        }

        @Test func borrowingClosesNothing() throws {
            let uffd = try UserfaultFD(features: .threadID)
            let memory = try Mapping(anonymous: page)
            struct Thrown: Error {}
            try uffd.withUnsafeDescriptor { descriptor throws in
                try UserfaultFD.withBorrowed(descriptor, features: .threadID) { borrowed throws in
                    #expect(borrowed.enabledFeatures == .threadID)
                    try borrowed.register(memory.range, modes: .missing)
                }
                #expect(throws: Thrown.self) {
                    try UserfaultFD.withBorrowed(descriptor, features: .threadID) { _ throws(Thrown) in throw Thrown() }
                }
            }
            try uffd.zeropage(memory.range)
        }

        /// `SO_PASSPIDFD` adds a descriptor to every message.
        @Test func pidfdsThatComeWithMessagesAreNotLeaked() async {
            await #expect(processExitsWith: .success) {
                let sockets = SocketPair()
                var yes: CInt = 1
                let passPidfd: CInt = 76
                guard setsockopt(sockets.second.rawValue, SOL_SOCKET, passPidfd, &yes, 4) == 0 else { return }
                // What `SO_PASSCRED` adds must not push the descriptors out.
                #expect(setsockopt(sockets.second.rawValue, SOL_SOCKET, SO_PASSCRED, &yes, 4) == 0)
                let before = Descriptors.open().count
                let hello = Passing.hello
                for _ in 0..<100 {
                    let surplus = Array(repeating: sockets.first, count: DescriptorPassing.limit)
                    try DescriptorPassing.send(hello.span.bytes, descriptors: surplus, over: sockets.first)
                    var message = try DescriptorPassing.receive(from: sockets.second)
                    #expect(message.descriptors.count == DescriptorPassing.limit)
                    guard let sender = message.takeSender() else { throw Unexpected() }
                    #expect(sender.hasExited == false)
                }
                // A hundred messages leak a hundred descriptors, or none; the test's own machinery has a few.
                let after = Descriptors.open().count
                #expect(after < before + 50)
            }
        }
    }
}
