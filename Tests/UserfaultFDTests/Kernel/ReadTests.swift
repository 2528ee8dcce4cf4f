import Glibc
import SystemPackage
import Testing

@testable import UserfaultFD

extension Kernel {
    @Suite struct Read {
        @Test func nothingThereIsNoError() throws {
            let guarded = try Guarded(pages: 1)
            var batch = EventBatch(capacity: 4)
            #expect(try guarded.uffd.read(into: &batch) == 0)
            #expect(batch.isEmpty == true)
            #expect(try guarded.uffd.poll(timeout: .milliseconds(5)) == false)
            #expect(try guarded.uffd.poll(timeout: .zero) == false)
            #expect(try guarded.uffd.poll(timeout: .seconds(-1)) == false)
        }

        @Test func oneReadTakesAsManyAsFit() throws {
            let guarded = try Guarded(pages: 3)
            let starts = (0..<3).map { guarded.memory.page($0).start }
            let touchers = starts.map { start in Worker { load(start) } }
            #expect(try eventually { try guarded.uffd.status().pending == 3 } == true)
            var batch = EventBatch(capacity: 2)
            #expect(try guarded.uffd.read(into: &batch) == 2)
            var pages: Set<UInt> = []
            while let fault = batch.nextPageFault() { pages.insert(fault.address) }
            let status = try guarded.uffd.status()
            #expect(status.pending == 1 && status.total == 3)
            #expect(try guarded.uffd.read(into: &batch) == 1)
            if let fault = batch.nextPageFault() { pages.insert(fault.address) }
            #expect(pages == Set(starts))
            try guarded.uffd.zeropage(guarded.range)
            for toucher in touchers { #expect(try toucher.value() == 0) }
        }

        @Test(.requires(.exactAddress)) func threadAndExactAddress() throws {
            let guarded = try Guarded(pages: 1, features: [.threadID, .exactAddress])
            let address = guarded.start + 123
            let toucher = Worker { () -> Int32 in
                _ = load(address)
                return NativeThread.currentID
            }
            let fault = try guarded.uffd.nextFault()
            #expect(fault.address == address)
            #expect(fault.page(size: .base) == guarded.range)
            try guarded.uffd.zeropage(guarded.range)
            #expect(try toucher.value() == Int32(fault.threadID))
        }

        @Test func blockingModeWaitsInReadAndRefusesPoll() throws {
            let guarded = try Guarded(pages: 1), start = guarded.start
            try guarded.uffd.setNonBlocking(false)
            expectFailure(.poll, .invalidArgument, .blockingMode) { () throws(UserfaultError) in
                _ = try guarded.uffd.poll(timeout: .seconds(1))
            }
            let toucher = Worker { load(start) }
            var batch = EventBatch(capacity: 4)
            #expect(try guarded.uffd.read(into: &batch) == 1)
            try guarded.uffd.zeropage(guarded.range)
            #expect(try toucher.value() == 0)
        }

        /// What the type warns of: closing turns pages that were never filled to zeros.
        @Test func closingReleasesWaitersWithZeros() throws {
            let memory = try Mapping(anonymous: page), start = memory.range.start
            let uffd = try UserfaultFD()
            try uffd.register(memory.range, modes: .missing)
            let toucher = Worker { load(start) }
            _ = try uffd.nextFault()
            let guardian = try uffd.duplicate()
            try uffd.close()
            #expect(try guardian.status().total == 1)
            try guardian.close()
            #expect(try toucher.value() == 0)
        }

        @Test func sigbusInThePlaceOfMessages() async {
            await #expect(processExitsWith: .signal(7)) {
                let guarded = try Guarded(pages: 1, features: .sigbus)
                _ = load(guarded.start)
            }
        }
    }
}
