import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    @Suite(.requires(.minorShmem)) struct Continue {
        @Test(arguments: [Mapping.Sharing.shared, .private]) func servesAMinorFault(sharing: Mapping.Sharing) throws {
            let twice = try Twice(pages: 2, sharing: sharing)
            let uffd = try UserfaultFD()
            try uffd.register(twice.guarded.range, modes: .minor)
            let address = twice.guarded.page(1).start
            store(1, at: twice.alias.page(1).start)
            let toucher = Worker { load(address) }
            let fault = try uffd.nextFault()
            #expect(fault.kind == .minor && fault.address == address && !fault.isWrite)
            store(2, at: twice.alias.page(1).start)
            #expect(try uffd.continue(fault.page(size: .base)) == page)
            #expect(try toucher.value() == 2)
            expectFailure(.continue, .fileExists, .alreadyMapped) { () throws(UserfaultError) in
                try uffd.continue(fault.page(size: .base))
            }
            // A private mapping's write leaves the file as it is.
            store(3, at: address)
            #expect(load(twice.alias.page(1).start) == (sharing == .shared ? 3 : 2))
        }

        @Test func aHoleIsNoPageInFile() throws {
            let twice = try Twice(pages: 3)
            let uffd = try UserfaultFD()
            try uffd.register(twice.guarded.range, modes: .minor)
            expectFailure(.continue, .badAddress, .noPageInFile) { () throws(UserfaultError) in
                try uffd.continue(twice.guarded.page(0))
            }
            store(1, at: twice.alias.page(0).start)
            store(1, at: twice.alias.page(1).start)
            expectFailure(.continue, .resourceTemporarilyUnavailable, .partial, bytes: 2 * page) {
                () throws(UserfaultError) in try uffd.continue(twice.guarded.range)
            }
            expectFailure(.continue, .badAddress, .noPageInFile) { () throws(UserfaultError) in
                try uffd.continue(twice.guarded.range.dropFirst(2 * page))
            }
        }

        /// EINVAL up to Linux 7.0, EFAULT after.
        @Test func pastTheEndOfTheFile() throws {
            let twice = try Twice(pages: 2)
            let uffd = try UserfaultFD()
            try uffd.register(twice.guarded.range, modes: .minor)
            try twice.memfd.resize(to: page)
            do throws(UserfaultError) {
                try uffd.continue(twice.guarded.page(1))
                Issue.record("there is no page past the end")
            } catch {
                #expect(error.reason == .invalidArgument || error.reason == .noPageInFile)
            }
        }

        @Test func wrongMemoryAndOptionsAreRefused() throws {
            let guarded = try Guarded(pages: 1)
            expectFailure(.continue, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.continue(guarded.range)
            }
            let twice = try Twice(pages: 1)
            let uffd = try UserfaultFD()
            try uffd.register(twice.guarded.range, modes: .minor)
            store(1, at: twice.alias.range.start)
            let needed = uffd.supportedFeatures.contains(.writeProtectUnpopulated)
            expectFailure(.continue, .invalidArgument, needed ? .invalidArgument : .unsupported) {
                () throws(UserfaultError) in try uffd.continue(twice.guarded.range, options: .writeProtect)
            }
            expectFailure(.continue, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.continue(AddressRange(start: guarded.start + 1, count: page))
            }
            expectFailure(.continue, .noSuchFileOrDirectory, .noSuchRange) { () throws(UserfaultError) in
                try uffd.continue(twice.alias.range)
            }
        }

        @Test(.requires([.writeProtectHugetlbfsShmem, .writeProtectUnpopulated])) func continuesProtected() throws {
            let twice = try Twice(pages: 1)
            let uffd = try UserfaultFD()
            try uffd.register(twice.guarded.range, modes: [.minor, .writeProtect])
            store(1, at: twice.alias.range.start)
            try uffd.continue(twice.guarded.range, options: .writeProtect)
            let start = twice.guarded.range.start
            let writer = Worker { store(9, at: start) }
            #expect(try uffd.nextFault().kind == .writeProtect)
            try uffd.writeProtect(twice.guarded.range, .unprotect)
            try writer.value()
            #expect(load(twice.alias.range.start) == 9)
        }
    }

    @Suite struct ContinueOnOldKernels {
        @Test(.requiresLackOf([.minorShmem])) func isUnsupported() throws {
            let twice = try Twice(pages: 1)
            let uffd = try UserfaultFD()
            expectFailure(.register, .invalidArgument, .unsupported) { () throws(UserfaultError) in
                try uffd.register(twice.guarded.range, modes: .minor)
            }
            expectFailure(.continue, .invalidArgument, .unsupported) { () throws(UserfaultError) in
                try uffd.continue(twice.guarded.range)
            }
        }
    }
}
