import Glibc
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

/// A process that has as many mappings as it may.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct MapLimitTests {
    /// The kernel registers one mapping after the other, and may not be able to divide the last one.
    @Test
    func aRegionThatIsRegisteredInPartIsUndone() async {
        await #expect(processExitsWith: .success) {
            let mapping = try Mapping(anonymous: 4 * pageBytes)
            // Behind a page of another kind: no neighbour becomes one mapping with the first page.
            try mapping.protect(.none, mapping.range.part(at: 0, count: pageBytes))
            let range = mapping.range.dropFirst(pageBytes)
            // A mapping of its own, which the region ends inside.
            try AddressSpace.advise(.dontFork, range.dropFirst(pageBytes))
            let first = range.part(at: 0, count: pageBytes)
            let other = try UserfaultFD()
            let pager = try Pager(UserfaultFD(), source: ZeroSource())
            var padding: [AddressRange] = []
            // No two neighbours are of one kind, and become one.
            while let page = try? Mapping(
                anonymous: pageBytes, protection: padding.count % 2 == 0 ? .read : .none)
            {
                padding.append(page.release())
            }
            guard padding.count > 1000 else { exit(2) }
            var failures = 0
            for _ in 0..<64 {
                do throws(PagerError) {
                    try pager.add(range.part(at: 0, count: 2 * pageBytes))
                    exit(failures > 0 ? 0 : 3)
                } catch .kernel(let error) where error.operation == .register {
                    guard error.errno == .noMemory else { exit(4) }
                    failures += 1
                } catch {}
                do throws(UserfaultError) {
                    _ = try other.register(first, modes: .missing)
                    try other.unregister(first)
                } catch { exit(5) }
                guard let page = padding.popLast() else { exit(6) }
                _ = try Mapping(adopting: page).unmap()
            }
            exit(7)
        }
    }
}
