import SystemPackage
import Testing

@testable import UserfaultFD

@Suite struct AddressRangeTests {
    @Test func holdsItsAddresses() {
        let range = AddressRange(start: 0x1000, count: 0x2000)
        #expect(range.end == 0x3000)
        #expect(range.contains(0x1000) && range.contains(0x2FFF))
        #expect(!range.contains(0xFFF) && !range.contains(0x3000))
        #expect(range.contains(AddressRange(start: 0x2000, count: 0x1000)))
        #expect(!range.contains(AddressRange(start: 0x2000, count: 0x1001)))
        #expect(range.description == "0x1000 ..< 0x3000")
    }

    @Test func neverWraps() {
        let top = AddressRange(start: .max - 4095, end: .max)
        #expect(top.count == 4095)
        #expect(AddressRange(start: 10, end: 5).isEmpty)
        #expect(AddressRange(start: 0, end: .max).count == .max)
        for (start, count) in [(UInt.max, 1), (UInt.max - 4095, 4096), (0, -1), (0, Int.min)] {
            expectFailure(.range, .invalidArgument, .invalidArgument) { () throws(UserfaultError) in
                try AddressRange(checkingStart: start, count: count)
            }
        }
    }

    @Test(arguments: [0, 0x1000, 0x1FFF, UInt.max, UInt.max - 4096, 1 << 63])
    func everyAddressHasAPage(address: UInt) {
        for size in [PageSize.base, .twoMiB, .oneGiB] {
            let page = AddressRange.page(holding: address, size: size)
            #expect(page.contains(address) || address == .max)
            #expect(page.start == size.roundDown(address))
        }
    }

    @Test func intersections() {
        let range = AddressRange(start: 100, count: 100)
        #expect(range.intersection(AddressRange(start: 150, count: 100)) == AddressRange(start: 150, count: 50))
        #expect(range.intersection(AddressRange(start: 300, count: 1)).isEmpty)
        #expect(range.overlaps(AddressRange(start: 199, count: 1)))
        #expect(!range.overlaps(AddressRange(start: 200, count: 1)))
        #expect(!range.overlaps(AddressRange(start: 150, count: 0)))
        #expect(range.dropFirst(30) == AddressRange(start: 130, count: 70))
        #expect(range.dropFirst(100).isEmpty)
    }

    @Test func alignment() {
        #expect(AddressRange(start: 0x200000, count: 0x200000).isAligned(to: .twoMiB))
        #expect(!AddressRange(start: 0x200000, count: 0x1000).isAligned(to: .twoMiB))
        #expect(AddressRange(start: 0x1000, count: 0x1000).isAligned(to: .base))
    }

    @Test func untrustedNumbersTrapInTheTrustingInitializer() async {
        let result = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            _ = AddressRange(start: UInt.max, count: identity(1))
        }
        #expect(text(result).contains("use init(checkingStart:count:)"))
        await #expect(processExitsWith: .failure) {
            _ = AddressRange(start: 0, count: 10).part(at: identity(5), count: 6)
        }
    }

    @Test func pageSizes() {
        #expect(PageSize(bytes: 0) == nil && PageSize(bytes: 3000) == nil && PageSize(bytes: -4096) == nil)
        #expect(PageSize(bytes: 4096)?.log2 == 12)
        #expect(PageSize.twoMiB.roundUp(1) == 2 << 20)
        #expect(PageSize.twoMiB.pages(in: (2 << 20) + 1) == 2)
        #expect(PageSize.base < .twoMiB)
    }
}

/// A value that the optimiser does not see through.
@inline(never) func identity<Value>(_ value: Value) -> Value { value }

/// What an exit test's process wrote to its standard error.
func text(_ result: ExitTest.Result?) -> String {
    String(decoding: result?.standardErrorContent ?? [], as: UTF8.self)
}
