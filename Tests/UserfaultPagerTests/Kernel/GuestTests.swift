import Glibc
import Testing
import UserfaultFD

@testable import UserfaultPager

/// A guest whose pager is in the process of its monitor.
@Suite(.serialized, .timeLimit(.minutes(5)), .requiresGuests)
struct GuestTests {
    static let services: [PagerConfiguration.Service] = [.inline, .workers(2)]

    @Test(arguments: services)
    func aGuestReadsAndWritesItsSource(service: PagerConfiguration.Service) throws {
        let written = 10..<20
        let found = try Self.found(service) { guest, range throws(Guest.Failure) in
            // Pages that are written before they are loaded, between others that are read first.
            try guest.write(written, 1000)
            return try guest.read(0..<64) + written.map { range.load32(at: $0 * Guest.pageBytes) }
        }
        let sums = (0..<64).map { page in
            let old = GuestSource.sum(page: page)
            guard written.contains(page) else { return old }
            return old &- UInt32(truncatingIfNeeded: GuestSource.word(page: page)) &+ UInt32(990 + page)
        }
        #expect(found == sums + written.map { UInt32(990 + $0) })
    }

    @Test(arguments: services)
    func whatTheBalloonTookIsZeros(service: PagerConfiguration.Service) throws {
        let found = try Self.found(service) { guest, range throws(Guest.Failure) in
            let before = try guest.read(0..<16)
            try? AddressSpace.advise(.dontNeed, range.part(at: 8 * pageBytes, count: 16 * pageBytes))
            return before + (try guest.read(0..<32))
        }
        let sums = (0..<32).map { (8..<24).contains($0) ? 0 : GuestSource.sum(page: $0) }
        #expect(found == (0..<16).map(GuestSource.sum) + sums)
    }

    /// Either the guest stops with an error of `KVM_RUN`, or its thread has the signal.
    @Test
    func aPageThatIsLostIsNeverZeros() async {
        await #expect(processExitsWith: .exitCode(7)) {
            signal(SIGBUS) { _ in _exit(7) }
            let source = ClosureSource { offset, pages throws(Unavailable) in
                guard offset == 0, pages.freeCapacity == pageBytes else { throw Unavailable() }
                return GuestSource().load(offset: offset, into: &pages)
            }
            let mapping = try Mapping(anonymous: 64 * pageBytes)
            let range = mapping.range
            let pager = try GuestTests.pager(range, source, .inline)
            let outcome = Toucher.value {
                Result { () throws(Guest.Failure) in
                    var guest = try Guest(memory: range)
                    return try guest.read(1..<2)
                }
            }
            guard case .failure(let failure) = outcome, failure.code == -EFAULT else { exit(1) }
            try pager.stop(.poison)
            exit(7)
        }
    }

    /// What a guest finds in its memory, on a thread of its own.
    private static func found(
        _ service: PagerConfiguration.Service,
        _ body: @escaping @Sendable (inout Guest, AddressRange) throws(Guest.Failure) -> [UInt32]
    ) throws -> [UInt32]? {
        let mapping = try Mapping(anonymous: 64 * pageBytes)
        let range = mapping.range
        let pager = try pager(range, GuestSource(), service)
        let outcome = Toucher.value {
            Result { () throws(Guest.Failure) in
                var guest = try Guest(memory: range)
                return try body(&guest, range)
            }
        }
        try pager.stop(.poison)
        return try outcome?.get()
    }

    private static func pager<Source: PageSource>(
        _ range: AddressRange, _ source: Source, _ service: PagerConfiguration.Service
    ) throws -> Pager<Source> {
        let pager = try Pager(
            UserfaultFD(features: .eventRemove, options: Guest.faults), source: source,
            configuration: PagerConfiguration(service: service))
        try pager.add(range)
        try pager.start()
        return pager
    }
}
