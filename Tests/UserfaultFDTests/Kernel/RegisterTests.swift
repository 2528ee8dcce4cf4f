import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    @Suite struct Register {
        @Test func answersTheIoctlsOfTheRequest() throws {
            let guarded = try Guarded(pages: 2)
            let ioctls = try guarded.uffd.register(guarded.range, modes: [.missing])
            #expect(ioctls.contains([.wake, .copy, .zeropage]))
            #expect(!ioctls.contains(.writeProtect) && !ioctls.contains(.continue))
        }

        @Test func badRangesAreRefused() throws {
            let guarded = try Guarded(pages: 2)
            let start = guarded.start
            let bad = [
                AddressRange(start: start, count: 0), AddressRange(start: start + 1, count: page),
                AddressRange(start: start, count: page - 1), AddressRange(start: start, count: .max),
                AddressRange(start: .max - UInt(page) + 1 - UInt(page), count: page), AddressRange(start: 0, end: .max),
            ]
            for range in bad {
                expectFailure(.register, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try guarded.uffd.register(range, modes: .missing)
                }
                expectFailure(.unregister, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try guarded.uffd.unregister(range)
                }
                expectFailure(.wake, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try guarded.uffd.wake(range)
                }
                expectFailure(.zeropage, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try guarded.uffd.zeropage(range)
                }
            }
        }

        @Test(.requires(.minorShmem)) func badModesAreRefused() throws {
            let guarded = try Guarded(pages: 1)
            expectFailure(.register, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.register(guarded.range, modes: [])
            }
            expectFailure(.register, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.register(guarded.range, modes: .init(rawValue: 1 << 20))
            }
            // Anonymous memory has no page cache to continue from.
            expectFailure(.register, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.register(guarded.range, modes: .minor)
            }
        }

        @Test(.requiresLackOf(.readWriteProtect)) func modesThatTheKernelLacksAreUnsupported() throws {
            let guarded = try Guarded(pages: 1)
            expectFailure(.register, .invalidArgument, .unsupported) { () throws(UserfaultError) in
                try guarded.uffd.register(guarded.range, modes: .readWriteProtect)
            }
        }

        @Test func nothingMappedIsRefused() throws {
            let guarded = try Guarded(pages: 1)
            let gone = try Mapping(anonymous: page)
            let range = gone.range
            try gone.unmap()
            expectFailure(.register, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.register(range, modes: .missing)
            }
            expectFailure(.unregister, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.unregister(range)
            }
        }

        @Test func anothersRangeIsBusy() throws {
            let guarded = try Guarded(pages: 1)
            let other = try UserfaultFD()
            expectFailure(.register, .resourceBusy, .busy) { () throws(UserfaultError) in
                try other.register(guarded.range, modes: .missing)
            }
            // The same descriptor may register again.
            try guarded.uffd.register(guarded.range, modes: .missing)
        }

        @Test func aFileThatCannotBeWrittenIsNotPermitted() throws {
            let memfd = try Memfd(count: page)
            try memfd.addSeals(.write)
            let memory = try Mapping(memfd, protection: .read)
            let uffd = try UserfaultFD()
            expectFailure(.register, .notPermitted, .notPermitted) { () throws(UserfaultError) in
                try uffd.register(memory.range, modes: .missing)
            }
        }

        @Test func theKernelsOwnMappingsAreRefused() throws {
            let maps = try #require(ProcFile.text("/proc/self/maps", limit: 1 << 22))
            let line = try #require(maps.split(separator: "\n").first { $0.hasSuffix("[vdso]") })
            let start = try #require(line.split(separator: "-").first.flatMap { UInt($0, radix: 16) })
            let uffd = try UserfaultFD()
            expectFailure(.register, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try uffd.register(AddressRange(start: start, count: page), modes: .missing)
            }
        }

        @Test func holesAreSkippedAndUnregisteringTwiceIsFine() throws {
            let memory = try Mapping(anonymous: 3 * page)
            try AddressSpace.unmap(memory.page(1))
            let uffd = try UserfaultFD()
            try uffd.register(memory.range, modes: .missing)
            try uffd.unregister(memory.range)
            try uffd.unregister(memory.range)
        }

        /// Since Linux 6.17; before, the range was unregistered.
        @Test func anothersRangeIsNotUnregistered() throws {
            let guarded = try Guarded(pages: 1)
            let other = try UserfaultFD()
            do throws(UserfaultError) {
                try other.unregister(guarded.range)
                #expect(try guarded.uffd.status().total == 0)
            } catch {
                #expect(error.errno == .invalidArgument && error.operation == .unregister)
            }
        }

        @Test func wakingNobodyIsFine() throws {
            let guarded = try Guarded(pages: 1)
            try guarded.uffd.wake(guarded.range)
        }

        @Test func wokenThreadsFaultAgain() throws {
            let guarded = try Guarded(pages: 1), start = guarded.start
            let toucher = Worker { load(start) }
            #expect(try guarded.uffd.nextFault().address == start)
            try guarded.uffd.wake(guarded.range)
            #expect(try guarded.uffd.nextFault().address == start)
            try guarded.uffd.unregister(guarded.range)
            #expect(try toucher.value() == 0)
        }

        @Test(.requiresLackOf(.readWriteProtect)) func setModeIsUnsupported() throws {
            let uffd = try UserfaultFD()
            expectFailure(.setMode, .invalidArgument, .unsupported) { () throws(UserfaultError) in
                try uffd.setMode(enable: .readWriteProtectAsync)
            }
        }

        @Test(.requiresHugePages(2)) func hugePagesWantTheirAlignment() throws {
            let memory = try Mapping(anonymous: 2 * PageSize.twoMiB.bytes, hugePages: .twoMiB)
            let uffd = try UserfaultFD()
            let ioctls = try uffd.register(memory.range, modes: .missing)
            #expect(ioctls.contains(.copy) && !ioctls.contains(.zeropage))
            for part in [
                memory.range.part(at: page, count: memory.pageSize.bytes), memory.range.part(at: 0, count: page),
            ] {
                expectFailure(.register, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try uffd.register(part, modes: .missing)
                }
            }
        }
    }
}
