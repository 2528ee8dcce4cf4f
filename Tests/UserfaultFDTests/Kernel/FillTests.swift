import Glibc
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    /// UFFDIO_COPY, UFFDIO_ZEROPAGE and UFFDIO_POISON.
    @Suite struct Fill {
        @Test(arguments: [false, true]) func copyServesAFault(writes: Bool) throws {
            let guarded = try Guarded(pages: 2), address = guarded.start + UInt(page) + 5
            let toucher = Worker { () -> UInt8 in
                if writes { store(9, at: address) }
                return load(address)
            }
            let fault = try guarded.uffd.nextFault()
            #expect(fault.address == address - 5)
            #expect(fault.kind == .missing && fault.isWrite == writes && fault.threadID == 0)
            let contents = pattern(7)
            #expect(try guarded.uffd.copy(contents.span.bytes, to: fault.page(size: .base)) == page)
            #expect(try toucher.value() == (writes ? 9 : 7))
        }

        @Test func aSpanThatIsNotPagesIsRefused() throws {
            let guarded = try Guarded(pages: 2)
            let contents = pattern(1, pages: 2)
            for (destination, count) in [(guarded.start, 100), (guarded.start, 0), (guarded.start + 1, page)] {
                expectFailure(.copy, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try guarded.uffd.copy(
                        contents.span.bytes.extracting(first: count), to: AddressRange(start: destination, count: count)
                    )
                }
            }
            // Wrapping is found before the kernel is asked.
            expectFailure(.copy, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.copy(contents.span.bytes, to: AddressRange(start: guarded.start, count: page - 1))
            }
        }

        @Test func aSourceNeedNotBeAligned() throws {
            let guarded = try Guarded(pages: 1)
            var contents = pattern(1, pages: 2)
            contents[3] = 42
            try guarded.uffd.copy(contents.span.bytes.extracting(3..<3 + page), to: guarded.memory.page(0))
            #expect(load(guarded.start) == 42)
        }

        @Test func aPageThatIsThereStays() throws {
            let guarded = try Guarded(pages: 1)
            let first = pattern(1), second = pattern(2)
            try guarded.uffd.copy(first.span.bytes, to: guarded.memory.page(0))
            expectFailure(.copy, .fileExists, .alreadyMapped) { () throws(UserfaultError) in
                try guarded.uffd.copy(second.span.bytes, to: guarded.range.part(at: 0, count: second.count))
            }
            expectFailure(.zeropage, .fileExists, .alreadyMapped) { () throws(UserfaultError) in
                try guarded.uffd.zeropage(guarded.range)
            }
            #expect(load(guarded.start) == 1)
        }

        /// Stopped half-way: the progress is told, and the rest tells the cause.
        @Test func progressIsTold() throws {
            let guarded = try Guarded(pages: 4)
            let contents = pattern(3, pages: 4)
            try guarded.uffd.zeropage(guarded.range.part(at: 2 * page, count: page))
            expectFailure(.copy, .resourceTemporarilyUnavailable, .partial, bytes: 2 * page) {
                () throws(UserfaultError) in
                try guarded.uffd.copy(contents.span.bytes, to: guarded.range.part(at: 0, count: contents.count))
            }
            let rest = guarded.range.dropFirst(2 * page)
            expectFailure(.copy, .fileExists, .alreadyMapped) { () throws(UserfaultError) in
                try guarded.uffd.copy(contents.span.bytes.extracting(first: rest.count), to: rest)
            }
            #expect(load(guarded.start + UInt(page)) == 3)
            #expect(load(rest.start) == 0)
        }

        @Test func progressOfTheOthersIsTold() throws {
            let guarded = try Guarded(pages: 2)
            try guarded.uffd.zeropage(guarded.memory.page(1))
            expectFailure(.zeropage, .resourceTemporarilyUnavailable, .partial, bytes: page) {
                () throws(UserfaultError) in try guarded.uffd.zeropage(guarded.range)
            }
            let other = try Guarded(pages: 2)
            try other.uffd.zeropage(other.memory.page(1))
            guard other.uffd.supportedFeatures.contains(.poison) else { return }
            expectFailure(.poison, .resourceTemporarilyUnavailable, .partial, bytes: page) {
                () throws(UserfaultError) in try other.uffd.poison(other.range)
            }
        }

        @Test func unregisteredMemoryIsNoSuchRange() throws {
            let guarded = try Guarded(pages: 1)
            let other = try Mapping(anonymous: page)
            let contents = pattern(1)
            expectFailure(.copy, .noSuchFileOrDirectory, .noSuchRange) { () throws(UserfaultError) in
                try guarded.uffd.copy(contents.span.bytes, to: other.range.part(at: 0, count: contents.count))
            }
            expectFailure(.zeropage, .noSuchFileOrDirectory, .noSuchRange) { () throws(UserfaultError) in
                try guarded.uffd.zeropage(other.range)
            }
        }

        /// Two registered mappings side by side are two mappings: nothing is done.
        @Test func aRangeOverTwoMappingsIsNoSuchRange() throws {
            let guarded = try Guarded(pages: 2)
            try guarded.memory.protect(.read, guarded.memory.page(1))
            let contents = pattern(1, pages: 2)
            expectFailure(.copy, .noSuchFileOrDirectory, .noSuchRange) { () throws(UserfaultError) in
                try guarded.uffd.copy(contents.span.bytes, to: guarded.range.part(at: 0, count: contents.count))
            }
            expectFailure(.zeropage, .noSuchFileOrDirectory, .noSuchRange) { () throws(UserfaultError) in
                try guarded.uffd.zeropage(guarded.range)
            }
            #expect(!isPresent(guarded.start))
        }

        @Test func anUnreadableSourceIsABadAddress() throws {
            let guarded = try Guarded(pages: 2)
            let source = try Mapping(anonymous: 2 * page, options: .populate)
            try source.protect(.none, source.page(1))
            expectFailure(.copy, .badAddress, .badAddress) { () throws(UserfaultError) in
                try guarded.uffd.copy(from: source.page(1).start, to: guarded.memory.page(0))
            }
            expectFailure(.copy, .resourceTemporarilyUnavailable, .partial, bytes: page) {
                () throws(UserfaultError) in try guarded.uffd.copy(from: source.range.start, to: guarded.range)
            }
        }

        @Test func doNotWakeLeavesTheWaiterAsleep() throws {
            let guarded = try Guarded(pages: 1), start = guarded.start
            let toucher = Worker { load(start) }
            _ = try guarded.uffd.nextFault()
            let contents = pattern(5)
            try guarded.uffd.copy(
                contents.span.bytes, to: AddressRange(start: start, count: contents.count), options: .doNotWake)
            #expect(try guarded.uffd.status().total == 1)
            try guarded.uffd.wake(guarded.range)
            #expect(try toucher.value() == 5)
            #expect(try guarded.uffd.status().total == 0)
        }

        @Test func protectingNeedsTheMode() throws {
            let guarded = try Guarded(pages: 1)
            let contents = pattern(1)
            expectFailure(.copy, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.copy(
                    contents.span.bytes, to: guarded.range.part(at: 0, count: contents.count), options: .writeProtect)
            }
            expectFailure(.copy, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.copy(
                    contents.span.bytes, to: guarded.range.part(at: 0, count: contents.count),
                    options: .init(rawValue: 1 << 9))
            }
            expectFailure(.zeropage, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.zeropage(guarded.range, options: .init(rawValue: 1 << 9))
            }
        }

        /// On a shared mapping past the file's end: EFAULT, from Linux 7.1 on ENOMEM.
        @Test func pastTheEndOfTheFile() throws {
            let twice = try Twice(pages: 2)
            let uffd = try UserfaultFD()
            try uffd.register(twice.guarded.range, modes: .missing)
            try twice.memfd.resize(to: page)
            let contents = pattern(1)
            let last = twice.guarded.page(1)
            for fill in [0, 1] {
                do throws(UserfaultError) {
                    if fill == 0 {
                        try uffd.copy(contents.span.bytes, to: AddressRange(start: last.start, count: contents.count))
                    } else {
                        try uffd.zeropage(last)
                    }
                    Issue.record("there is no page past the end")
                } catch {
                    #expect(error.reason == .badAddress || error.reason == .noMemory)
                    #expect(error.bytesCompleted == 0)
                }
            }
        }

        @Test(.requires(.poison)) func poisonMarksMissingPages() throws {
            let guarded = try Guarded(pages: 2)
            #expect(try guarded.uffd.poison(guarded.memory.page(0)) == page)
            expectFailure(.poison, .fileExists, .alreadyMapped) { () throws(UserfaultError) in
                try guarded.uffd.poison(guarded.memory.page(0))
            }
            expectFailure(.poison, .noSuchFileOrDirectory, .noSuchRange) { () throws(UserfaultError) in
                // Nothing is mapped there, and everything might be: lower addresses are refused by some kernels.
                try guarded.uffd.poison(AddressRange(start: 1 << 20, count: page))
            }
            expectFailure(.poison, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.poison(guarded.range, options: .init(rawValue: 1 << 9))
            }
            // A copy heals it.
            let contents = pattern(8)
            try guarded.uffd.copy(contents.span.bytes, to: guarded.range.part(at: 0, count: contents.count))
            #expect(load(guarded.start) == 8)
        }

        @Test(.requires(.poison)) func poisonPastTheEndIsABadAddress() throws {
            let twice = try Twice(pages: 2)
            let uffd = try UserfaultFD()
            try uffd.register(twice.guarded.range, modes: .missing)
            try twice.memfd.resize(to: page)
            expectFailure(.poison, .badAddress, .badAddress) { () throws(UserfaultError) in
                try uffd.poison(twice.guarded.page(1))
            }
        }

        @Test(.requires(.poison)) func touchingAPoisonedPageEndsTheProcess() async {
            await #expect(processExitsWith: .signal(SIGBUS)) {
                let guarded = try Guarded(pages: 1)
                try guarded.uffd.poison(guarded.range)
                _ = load(guarded.start)
            }
        }

        @Test(.requiresLackOf(.poison)) func poisonIsUnsupported() throws {
            let guarded = try Guarded(pages: 1)
            expectFailure(.poison, .invalidArgument, .unsupported) { () throws(UserfaultError) in
                try guarded.uffd.poison(guarded.range)
            }
        }

        @Test(.requiresHugePages(2)) func hugePagesAreCopiedWhole() throws {
            let size = PageSize.twoMiB
            let memory = try Mapping(anonymous: 2 * size.bytes, hugePages: size)
            let uffd = try UserfaultFD()
            try uffd.register(memory.range, modes: .missing)
            let contents = [UInt8](repeating: 6, count: size.bytes)
            expectFailure(.zeropage, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try uffd.zeropage(memory.page(0))
            }
            expectFailure(.copy, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try uffd.copy(contents.span.bytes.extracting(first: page), to: memory.range.part(at: 0, count: page))
            }
            let address = memory.page(1).start + 12345
            let toucher = Worker { load(address) }
            let fault = try uffd.nextFault()
            #expect(fault.page(size: size) == memory.page(1))
            #expect(try uffd.copy(contents.span.bytes, to: memory.page(1)) == size.bytes)
            #expect(try toucher.value() == 6)
            expectFailure(.copy, .fileExists, .alreadyMappedOrPoolEmpty) { () throws(UserfaultError) in
                try uffd.copy(contents.span.bytes, to: memory.page(1))
            }
            #expect(try PagemapScan().isPopulated(memory.page(1).start))
            #expect(try !PagemapScan().isPopulated(memory.page(0).start))
        }
    }
}
