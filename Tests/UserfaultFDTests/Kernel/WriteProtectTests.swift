import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    @Suite(.requires(.writeProtect)) struct WriteProtect {
        /// Anonymous memory that is populated, registered and protected.
        static func protected(pages: Int, features: UserfaultFD.Features = []) throws -> Guarded {
            let guarded = try Guarded(pages: pages, features: features, modes: [.missing, .writeProtect])
            try guarded.uffd.copy(pattern(1, pages: pages).span.bytes, to: guarded.range)
            try guarded.uffd.writeProtect(guarded.range, .protect)
            return guarded
        }

        @Test func aWriteWaitsUntilItIsUnprotected() throws {
            let guarded = try Self.protected(pages: 2), start = guarded.start
            #expect(load(start) == 1)
            let writer = Worker { store(2, at: start) }
            let fault = try guarded.uffd.nextFault()
            #expect(fault.kind == .writeProtect && fault.isWrite && fault.address == start)
            try guarded.uffd.writeProtect(fault.page(size: .base), .unprotect)
            try writer.value()
            #expect(load(start) == 2)
        }

        @Test func unprotectingWithoutWaking() throws {
            let guarded = try Self.protected(pages: 1), start = guarded.start
            let writer = Worker { store(2, at: start) }
            _ = try guarded.uffd.nextFault()
            try guarded.uffd.writeProtect(guarded.range, .unprotectWithoutWaking)
            #expect(try guarded.uffd.status().total == 1)
            try guarded.uffd.wake(guarded.range)
            try writer.value()
        }

        @Test func copiesProtected() throws {
            let guarded = try Guarded(pages: 1, modes: [.missing, .writeProtect]), start = guarded.start
            try guarded.uffd.copy(
                pattern(1).span.bytes, to: AddressRange(start: start, count: page), options: .writeProtect)
            let writer = Worker { store(2, at: start) }
            #expect(try guarded.uffd.nextFault().kind == .writeProtect)
            try guarded.uffd.writeProtect(guarded.range, .unprotect)
            try writer.value()
        }

        @Test func wrongRangesAndFlagsAreRefused() throws {
            let guarded = try Self.protected(pages: 1)
            let other = try Guarded(pages: 1)
            expectFailure(.writeProtect, .noSuchFileOrDirectory, .noSuchRange) { () throws(UserfaultError) in
                try guarded.uffd.writeProtect(other.range, .protect)
            }
            expectFailure(.writeProtect, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.writeProtect(guarded.range, [.protect, .unprotectWithoutWaking])
            }
            for range in [
                AddressRange(start: guarded.start, count: 0), AddressRange(start: guarded.start + 1, count: page),
            ] {
                expectFailure(.writeProtect, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                    try guarded.uffd.writeProtect(range, .protect)
                }
            }
        }

        @Test(.requires(.writeProtectUnpopulated)) func emptyPagesAreProtected() throws {
            let guarded = try Guarded(pages: 1, features: .writeProtectUnpopulated, modes: .writeProtect)
            try guarded.uffd.writeProtect(guarded.range, .protect)
            let start = guarded.start
            let writer = Worker { store(2, at: start) }
            #expect(try guarded.uffd.nextFault().kind == .writeProtect)
            // A marker is not an empty page to UFFDIO_ZEROPAGE.
            try guarded.uffd.writeProtect(guarded.range, .unprotect)
            try writer.value()
        }

        @Test(.requires(.writeProtectUnpopulated)) func aMarkerIsAPageToZeropage() throws {
            let guarded = try Guarded(
                pages: 1, features: .writeProtectUnpopulated, modes: [.missing, .writeProtect])
            try guarded.uffd.writeProtect(guarded.range, .protect)
            expectFailure(.zeropage, .fileExists, .alreadyMapped) { () throws(UserfaultError) in
                try guarded.uffd.zeropage(guarded.range)
            }
            try guarded.uffd.copy(pattern(1).span.bytes, to: guarded.memory.page(0))
        }

        @Test(.requires(.writeProtectAsync)) func dirtyPagesAreFoundAndProtectedAnew() throws {
            let memory = try Mapping(anonymous: 4 * page)
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            try uffd.register(memory.range, modes: .writeProtect)
            try uffd.writeProtect(memory.range, .protect)
            let scan = try PagemapScan()
            #expect(try scan.scan(memory.range, for: .takeWritten).regions.isEmpty)
            store(1, at: memory.page(1).start)
            store(1, at: memory.page(2).start)
            let found = try scan.scan(memory.range, for: .takeWritten)
            #expect(found.regions.map(\.range) == [memory.range.part(at: page, count: 2 * page)])
            #expect(found.end == memory.range.end)
            #expect(try scan.scan(memory.range, for: .takeWritten).regions.isEmpty)
        }

        @Test(.requiresHugePages(1), .requires(.writeProtectHugetlbfsShmem)) func hugePagesWantTheirAlignment() throws {
            let memory = try Mapping(anonymous: PageSize.twoMiB.bytes, hugePages: .twoMiB)
            let uffd = try UserfaultFD()
            try uffd.register(memory.range, modes: .writeProtect)
            expectFailure(.writeProtect, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try uffd.writeProtect(memory.range.part(at: 0, count: page), .protect)
            }
        }
    }

    @Suite struct ReadWriteProtect {
        @Test(.requiresLackOf(.readWriteProtect)) func isUnsupportedBeforeLinux7_3() throws {
            let guarded = try Guarded(pages: 1)
            expectFailure(.rwProtect, .invalidArgument, .unsupported) { () throws(UserfaultError) in
                try guarded.uffd.rwProtect(guarded.range, .protect)
            }
        }

        @Test(.requires(.readWriteProtect)) func everyAccessWaits() throws {
            let guarded = try Guarded(pages: 1, features: .readWriteProtect, modes: .readWriteProtect)
            store(7, at: guarded.start)
            try guarded.uffd.rwProtect(guarded.range, .protect)
            let start = guarded.start
            let reader = Worker { load(start) }
            let fault = try guarded.uffd.nextFault()
            #expect(fault.kind == .readWriteProtect && !fault.isWrite)
            try guarded.uffd.rwProtect(guarded.range, .unprotect)
            #expect(try reader.value() == 7)
            let other = try Guarded(pages: 1)
            expectFailure(.rwProtect, .noSuchFileOrDirectory, .noSuchRange) { () throws(UserfaultError) in
                try guarded.uffd.rwProtect(other.range, .protect)
            }
        }

        @Test(.requires([.readWriteProtect, .readWriteProtectAsync])) func modeIsSwitched() throws {
            let guarded = try Guarded(pages: 1, features: .readWriteProtect, modes: .readWriteProtect)
            store(7, at: guarded.start)
            try guarded.uffd.rwProtect(guarded.range, .protect)
            let start = guarded.start
            let reader = Worker { load(start) }
            _ = try guarded.uffd.nextFault()
            try guarded.uffd.setMode(enable: .readWriteProtectAsync)
            #expect(try reader.value() == 7)
            expectFailure(.setMode, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try guarded.uffd.setMode(enable: .readWriteProtectAsync, disable: .readWriteProtectAsync)
            }
            expectFailure(.negotiate, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try UserfaultFD(features: .readWriteProtectAsync)
            }
        }
    }
}
