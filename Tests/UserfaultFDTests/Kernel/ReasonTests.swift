import CTestSupport
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    /// What an answer means, where the kernel answers different things alike.
    @Suite struct Reasons {
        /// The twin knows nothing of what its sibling negotiated, and the kernel does.
        @Test func aTwinThatItsSiblingNegotiated() throws {
            var sibling = try UserfaultFD(unnegotiated: .init())
            let twin = try sibling.duplicate()
            let memory = try Mapping(anonymous: page)
            expectFailure(.register, .invalidArgument, .notNegotiated) { () throws(UserfaultError) in
                try twin.register(memory.range, modes: .missing)
            }
            try sibling.negotiate()
            expectFailure(.register, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try twin.register(AddressRange(start: memory.range.start + 1, count: page), modes: .missing)
            }
            try twin.register(memory.range, modes: .missing)
            expectFailure(.zeropage, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try twin.zeropage(AddressRange(start: memory.range.start + 1, count: page))
            }
            if Host.support.features.contains(.move) {
                expectFailure(.move, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try twin.move(from: memory.range.start + 1, to: memory.range)
                }
            }
        }

        @Test(.requiresLackOf(.readWriteProtectAsync)) func aFeatureThatIsNotThereAtAll() {
            expectFailure(.negotiate, .invalidArgument, .unsupported) { () throws(UserfaultError) in
                try UserfaultFD(features: .readWriteProtectAsync)
            }
        }

        @Test(.requires(.readWriteProtectAsync)) func aFeatureThatCannotBeAlone() {
            expectFailure(.negotiate, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try UserfaultFD(features: .readWriteProtectAsync)
            }
        }

        @Test func aProcessThatIsGoneIsTold() throws {
            var owner = cts_owner()
            try #require(cts_owner_start(&owner) == 0)
            let uffd = try Arrived(over: FileDescriptor(rawValue: owner.socket)).take()
            #expect(uffd.isProcessGone == false)
            #expect(cts_owner_end(&owner, 1) == -9)
            #expect(uffd.isProcessGone == true)
            #expect(try UserfaultFD().isProcessGone == false)
            #expect(try UserfaultFD(unnegotiated: .init()).isProcessGone == false)
        }

        /// From Linux 6.18 on the answer is `EEXIST`: whoever wakes and retries for ever spins.
        @Test(.requiresHugePages(1)) func anEmptyPoolIsNotAPageThatIsThere() async {
            await #expect(processExitsWith: .success) {
                let size = PageSize.twoMiB
                let memory = try Mapping(anonymous: size.bytes, hugePages: size, options: .noReserve)
                let uffd = try UserfaultFD()
                try uffd.register(memory.range, modes: .missing)
                let contents = [UInt8](repeating: 1, count: size.bytes)
                // Everything that is free, one after the other: other programs may take pages too.
                var hoard: [AddressRange] = []
                while let taken = try? Mapping(anonymous: size.bytes, hugePages: size) {
                    store(1, at: taken.range.start)
                    hoard.append(taken.release())
                }
                do throws(UserfaultError) {
                    try uffd.copy(contents.span.bytes, to: memory.range)
                    Issue.record("the pool was not empty")
                } catch {
                    let lawful: [UserfaultError.Reason] = [.alreadyMappedOrPoolEmpty, .noMemory]
                    #expect(lawful.contains(error.reason))
                    #expect(!error.description.contains("wake the threads that wait for it and go on"))
                }
                #expect(try PagemapScan().isPopulated(memory.range.start) == false)
                for taken in hoard { try AddressSpace.unmap(taken) }
                try uffd.copy(contents.span.bytes, to: memory.range)
                #expect(try PagemapScan().isPopulated(memory.range.start) == true)
            }
        }

        @Test func oneBasePageIsNeverOfHugetlbfs() throws {
            let guarded = try Guarded(pages: 1)
            try guarded.uffd.copy(pattern(1).span.bytes, to: guarded.range)
            expectFailure(.copy, .fileExists, .alreadyMapped) { () throws(UserfaultError) in
                try guarded.uffd.copy(pattern(1).span.bytes, to: guarded.range)
            }
        }

        /// The error's advice and the probe's remedy are the same diagnosis.
        @Test(.requiresRoot) func aFilterIsToldFromALackOfPrivilege() async {
            await #expect(processExitsWith: .success) {
                _ = try UserfaultFD(options: .init(faults: .userAndKernelMode, way: .systemCall))
                #expect(cts_refuse_userfaultfd(Errno.notPermitted.rawValue) == 0)
                for faults in [UserfaultFD.OpenOptions.Faults.userMode, .userAndKernelMode] {
                    do throws(UserfaultError) {
                        _ = try UserfaultFD(options: .init(faults: faults, way: .systemCall))
                        Issue.record("the filter let it through")
                    } catch {
                        #expect(error.description.contains("seccomp"), "\(error)")
                        #expect(!error.description.contains("CAP_SYS_PTRACE"), "\(error)")
                    }
                }
                let probed = KernelSupport.probe()[.systemCall]?.remedy ?? ""
                #expect(probed.contains("seccomp") && !probed.contains("CAP_SYS_PTRACE"))
            }
        }

        @Test(.requiresRoot) func aLackOfPrivilegeIsToldFromAFilter() async {
            await #expect(processExitsWith: .success) {
                #expect(cts_become_user(65534) == 0)
                do throws(UserfaultError) {
                    _ = try UserfaultFD(options: .init(faults: .userAndKernelMode, way: .systemCall))
                    let isOpenToAll = ProcFile.text("/proc/sys/vm/unprivileged_userfaultfd")?.hasPrefix("1")
                    #expect(isOpenToAll == true)
                } catch {
                    let hasUserModeOnly = KernelRelease.current.isAtLeast(5, 11)
                    #expect(error.description.contains("handle user-mode faults only") == hasUserModeOnly, "\(error)")
                    #expect(!error.description.contains("seccomp"), "\(error)")
                    #expect(error.description.contains("CAP_SYS_PTRACE"), "\(error)")
                }
            }
        }
    }
}
