import CTestSupport
import Glibc
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    @Suite struct Memory {
        @Test func mappingsAreWholePages() throws {
            var memory = try Mapping(anonymous: page + 1)
            #expect(memory.count == 2 * page)
            #expect(memory.pageCount == 2)
            memory.withMutableBytes { bytes in bytes.storeBytes(of: 7 as UInt8, toByteOffset: page, as: UInt8.self) }
            #expect(memory.withBytes { $0.unsafeLoad(fromByteOffset: page, as: UInt8.self) } == 7)
        }

        @Test(arguments: [0, -1, Int.max, Int.min])
        func lengthsThatCannotBeAreRefused(count: Int) {
            expectFailure(.map, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try Mapping(anonymous: count)
            }
        }

        @Test func placements() throws {
            let first = try Mapping(anonymous: page), start = first.range.start
            expectFailure(.map, .fileExists, .other) { () throws(UserfaultError) in
                try Mapping(anonymous: page, placement: .at(start))
            }
            let replaced = first.release()
            let second = try Mapping(anonymous: page, placement: .replacing(replaced.start))
            #expect(second.range == replaced)
        }

        @Test func remappingMovesAndGrows() throws {
            var memory = try Mapping(anonymous: page)
            store(9, at: memory.range.start)
            try memory.remap(count: 64 * page)
            #expect(memory.count == 64 * page)
            #expect(load(memory.range.start) == 9)
            let target = try Mapping(anonymous: 64 * page, protection: .none).release()
            try memory.remap(to: .replacing(target.start))
            #expect(memory.range == target)
            #expect(load(target.start) == 9)
            let before = memory.range
            expectFailure(.remap, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try memory.remap(count: 0)
            }
            #expect(memory.range == before)
        }

        @Test func aMoveReplacesNothingUnlessItIsToldTo() throws {
            var memory = try Mapping(anonymous: page)
            store(9, at: memory.range.start)
            let others = try Mapping(anonymous: page)
            store(5, at: others.range.start)
            let before = memory.range, taken = others.range
            expectFailure(.remap, .fileExists, .other) { () throws(UserfaultError) in
                try memory.remap(to: .at(taken.start))
            }
            #expect(memory.range == before && load(taken.start) == 5 && load(before.start) == 9)
            try others.unmap()
            try memory.remap(to: .at(taken.start))
            #expect(memory.range == taken && load(taken.start) == 9)
        }

        /// The rest is the caller's: nobody unmaps a hole that may be somebody else's.
        @Test func aHoleDividesTheMemory() throws {
            let memory = try Mapping(anonymous: 3 * page), range = memory.range
            let rest = try memory.unmap(range.part(at: page, count: page))
            #expect(
                rest.before == range.part(at: 0, count: page) && rest.after == range.part(at: 2 * page, count: page))
            let others = try Mapping(anonymous: page, placement: .at(range.start + UInt(page)))
            store(3, at: others.range.start)
            store(1, at: rest.after.start)
            try Mapping(adopting: rest.before).unmap()
            try Mapping(adopting: rest.after).unmap()
            #expect(load(others.range.start) == 3)
        }

        @Test(arguments: [Int.max, Int.max - 1, Int.max - 4095, Int.max - 4094, 1 << 62])
        func hugeLengthsAreRefusedAndDoNotTrap(count: Int) throws {
            #expect(throws: UserfaultError.self) { _ = try Mapping(anonymous: count).count }
            var memory = try Mapping(anonymous: page)
            #expect(throws: UserfaultError.self) { try memory.remap(count: count) }
            let memfd = try Memfd(count: page)
            #expect(throws: UserfaultError.self) { _ = try Mapping(memfd, count: count).count }
            let huge = try #require(PageSize(bytes: 1 << 62))
            #expect(throws: UserfaultError.self) { _ = try Mapping(anonymous: count, hugePages: huge).count }
        }

        @Test(arguments: [UInt.max, UInt.max - 4094, 1, 4097]) func addressesThatBeginNoPageAreRefused(address: UInt) {
            expectFailure(.map, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try Mapping(anonymous: page, placement: .at(address))
            }
        }

        @Test(.requiresHugePages(1)) func aFileOfHugePagesIsMappedInHugePages() throws {
            let file = try Memfd(count: PageSize.twoMiB.bytes, hugePages: .twoMiB)
            let count = try file.withUnsafeDescriptor { descriptor throws in
                try Mapping(file: descriptor, count: page).count
            }
            #expect(count == PageSize.twoMiB.bytes)
        }

        @Test func aPageIsNotSmallerThanABasePage() throws {
            let tiny = try #require(PageSize(bytes: 1))
            expectFailure(.map, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try Mapping(anonymous: 1, hugePages: tiny)
            }
            expectFailure(.createMemfd, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try Memfd(count: page, hugePages: tiny)
            }
        }

        @Test func pagesMoveAndTheRangeStays() throws {
            let guarded = try Guarded(pages: 2), start = guarded.start
            try guarded.uffd.copy(pattern(7, pages: 2).span.bytes, to: guarded.range)
            let moved = try guarded.memory.movePages()
            #expect(moved.count == 2 * page && !moved.range.overlaps(guarded.range))
            #expect(load(moved.page(1).start) == 7)
            // The range is registered still, and empty.
            let toucher = Worker { load(start) }
            #expect(try guarded.uffd.nextFault().address == start)
            try guarded.uffd.zeropage(guarded.memory.page(0))
            #expect(try toucher.value() == 0)
        }

        @Test(arguments: [Int.max, Int.min, 0, -1]) func lengthsThatCannotBeMovedToAreRefused(count: Int) throws {
            var memory = try Mapping(anonymous: page)
            let before = memory.range
            expectFailure(.remap, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try memory.remap(count: count)
            }
            #expect(memory.range == before)
        }

        @Test(arguments: [Int.min, -1, Int.min + 4096]) func offsetsThatCannotBeAreRefused(offset: Int) throws {
            let memfd = try Memfd(count: page)
            for count in [nil, page] {
                expectFailure(.map, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try Mapping(memfd, offset: offset, count: count)
                }
            }
        }

        /// Nothing in Swift can point to it.
        @Test func nothingIsMappedAtAddressZero() {
            for placement in [Mapping.Placement.replacing(0), .at(0)] {
                expectFailure(.map, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try Mapping(anonymous: page, placement: placement)
                }
            }
        }

        @Test func optionsAreTheKernelsBits() throws {
            let noReserve = Mapping.Options(rawValue: MAP_NORESERVE)
            #expect(noReserve == .noReserve)
            let memory = try Mapping(anonymous: page, options: noReserve)
            let smaps = try ProcFile.read("/proc/self/smaps", limit: 1 << 24, for: .status)
            let lines = smaps.split(separator: "\n")
            let start = String(memory.range.start, radix: 16)
            let entry = lines.drop { !$0.hasPrefix("\(start)-") }
            let flags = entry.first { $0.hasPrefix("VmFlags:") }
            #expect(flags?.contains(" nr") == true)
            for decided in [MAP_FIXED, MAP_SHARED, MAP_ANONYMOUS, MAP_HUGETLB] {
                expectFailure(.map, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try Mapping(anonymous: page, options: .init(rawValue: decided))
                }
            }
        }

        @Test func residencyIsTold() throws {
            let memory = try Mapping(anonymous: 3 * page)
            try memory.advise(.noHugePage)
            store(1, at: memory.page(1).start)
            #expect(try memory.residency() == [false, true, false])
            #expect(try memory.residency(of: memory.page(1)) == [true])
            expectFailure(.residency, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try memory.residency(of: AddressRange(start: memory.range.start, count: 4 * page))
            }
        }

        @Test func childrenFindZeros() throws {
            let memory = try Mapping(anonymous: page), start = memory.range.start
            store(1, at: start)
            try memory.advise(.wipeOnFork)
            #expect(cts_wait(cts_fork_loader(start)) == 0)
            try memory.advise(.keepOnFork)
            #expect(cts_wait(cts_fork_loader(start)) == 1)
        }

        @Test func partsMustLieInTheMapping() throws {
            let memory = try Mapping(anonymous: page)
            let outside = AddressRange(start: memory.range.start, count: 2 * page)
            expectFailure(.advise, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try memory.advise(.dontNeed, outside)
            }
            expectFailure(.protect, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try memory.protect(.read, outside)
            }
            expectFailure(.unmap, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try Mapping(anonymous: page).unmap(outside)
            }
            expectFailure(.advise, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try memory.advise(Advice(rawValue: 9999))
            }
        }

        static func read(
            _ memfd: borrowing Memfd, into bytes: inout [UInt8], at offset: Int
        ) throws(UserfaultError) {
            var elements = bytes.mutableSpan
            var span = elements.mutableBytes
            try memfd.read(into: &span, at: offset)
        }

        @Test func memfdsAreWrittenReadPunchedAndSealed() throws {
            let memfd = try Memfd(count: 2 * page)
            try memfd.write(pattern(5).span.bytes, at: page)
            var bytes = pattern(0)
            try Self.read(memfd, into: &bytes, at: page)
            #expect(bytes == pattern(5))
            #expect(try memfd.status() == Memfd.Status(count: 2 * page, blocks: page / 512))
            try memfd.punchHole(at: page, count: page)
            try memfd.allocate(at: 0, count: page)
            #expect(try memfd.status().blocks == page / 512)

            var beyond = pattern(0, pages: 2)
            expectFailure(.readFile, .noData, .other, bytes: page) { () throws(UserfaultError) in
                try Self.read(memfd, into: &beyond, at: page)
            }
            try memfd.addSeals([.shrink, .futureWrite])
            #expect(try memfd.seals() == [.shrink, .futureWrite])
            expectFailure(.resize, .notPermitted, .notPermitted) { () throws(UserfaultError) in
                try memfd.resize(to: page)
            }
            expectFailure(.writeFile, .notPermitted, .notPermitted) { () throws(UserfaultError) in
                try memfd.write(pattern(1).span.bytes, at: 0)
            }
            try memfd.addSeals(.seal)
            expectFailure(.seal, .notPermitted, .notPermitted) { () throws(UserfaultError) in
                try memfd.addSeals(.grow)
            }
            expectFailure(.map, .notPermitted, .notPermitted) { () throws(UserfaultError) in try Mapping(memfd) }
        }

        @Test func badMemfdsAreRefused() throws {
            let long = String(repeating: "x", count: 300)
            expectFailure(.createMemfd, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try Memfd(name: long, count: page)
            }
            expectFailure(.resize, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try Memfd(count: -1)
            }
        }

        @Test func adoptedFilesHaveTheirPageSize() throws {
            let number = try Memfd(count: page).release()
            let adopted = try Memfd(adopting: number)
            #expect(adopted.pageSize == .base)
            let whole = try Mapping(adopted)
            #expect(whole.count == page)
        }

        @Test(.requiresHugePages(1)) func adoptedHugeFilesToo() throws {
            let memfd = try Memfd(count: PageSize.twoMiB.bytes, hugePages: .twoMiB)
            let adopted = try Memfd(adopting: memfd.release())
            #expect(adopted.pageSize == .twoMiB)
            #expect(try Mapping(adopted).pageCount == 1)
        }

        @Test(.requiresGuestMemory) func adoptedGuestMemoryToo() throws {
            let adopted = try Memfd(adopting: GuestMemory.descriptor(count: 4 * page).release())
            #expect(adopted.pageSize == .base)
            #expect(try adopted.status().count == 4 * page)
            var whole = try Mapping(adopted)
            #expect(whole.count == 4 * page)
            whole.withMutableBytes { $0.storeBytes(of: 7 as UInt8, as: UInt8.self) }
            try adopted.punchHole(at: 0, count: page)
            #expect(whole.withBytes { $0.unsafeLoad(as: UInt8.self) } == 0)
        }

        @Test func anonymousInodesAreNoMemory() throws {
            let number = try UserfaultFD().release()
            defer { close(number) }
            expectFailure(.fileStatus, .invalidArgument, .notMemoryFile) { () throws(UserfaultError) in
                try Memfd(adopting: number)
            }
        }

        @Test(.requires(.writeProtectAsync)) func scansFindPages() throws {
            let memory = try Mapping(anonymous: 8 * page)
            try memory.advise(.noHugePage)
            for index in [1, 2, 5] { store(1, at: memory.page(index).start) }
            let scan = try PagemapScan()
            let present = PagemapScan.Query(all: .present, reported: .present)
            let found = try scan.scan(memory.range, for: present)
            #expect(found.regions.map(\.range) == [memory.range.part(at: page, count: 2 * page), memory.page(5)])
            let first = try scan.scan(memory.range, for: present, regionLimit: 1)
            #expect(first.regions.count == 1)
            #expect(first.end >= memory.page(2).end)
            #expect(first.end <= memory.page(5).start)
            expectFailure(.pagemapScan, .notPermitted, .notPermitted) { () throws(UserfaultError) in
                try scanResult(scan, memory.range, .takeWritten)
            }
            expectFailure(.pagemapScan, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try scanResult(scan, memory.range, .init(all: .init(rawValue: 1 << 40)))
            }
            expectFailure(.pagemapScan, .noSuchFileOrDirectory, .other) { () throws(UserfaultError) in
                try PagemapScan(process: 1 << 30)
            }
        }
    }
}
