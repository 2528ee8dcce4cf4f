internal import Synchronization
internal import UserfaultFD

// Pages that are not the pager's any more: unmapped, or another's. Runs on loaders, on the threads of callers, and on the
// thread that stops the pager.

extension PagerCore where Source: ~Copyable {
    /// Makes sure, before pages are filled for which no thread waits, that they are this pager's still.
    ///
    /// - Returns: As many of the pages as lie in one mapping, or `nil`; the others are given back.
    func confine(_ claim: Claim, of memory: ServedMemory) -> Claim? {
        var claim = claim
        while true {
            switch memory.sharingOrder({ _, _ in memory.holder(of: claim) }) {
            case .thisDescriptor, .changing, .processGone:
                // What changes, and who is gone, the fill finds out.
                return claim
            case .nobody where claim.pages > 1:
                let half = (claim.pages / 2) << claim.region.pageShift
                giveBack(claim.dropFirst(half), of: memory)
                claim = claim.prefix(pages: claim.pages / 2)
            case .nobody, .another:
                giveBack(claim, of: memory)
                return nil
            }
        }
    }

    // MARK: Holes

    /// What tells where memory is mapped; `nil` where nobody can say.
    ///
    /// Opening takes memory from the heap: not by a thread for whose reading a fork may wait.
    func openHoleMap() -> PagemapScan? {
        children.isEmpty || isRead.load(ordering: .relaxed) ? try? openPageMap() : nil
    }

    /// Where memory is mapped again after a page that is not mapped.
    func endOfHole(after page: AddressRange, _ region: RegionReference, in memory: ServedMemory) -> UInt {
        // The page map is not that of a fork's child.
        guard memory.number < memories.count else { return page.end }
        let map = openHoleMap()
        return memory.sharingOrder { _, machine in endOfHole(after: page, region, in: machine, map) }
    }

    /// As above, without memory from the heap.
    ///
    /// - Returns: At least the end of the page, at most the end of what the region has there.
    func endOfHole(
        after page: AddressRange, _ region: RegionReference, in machine: borrowing PagerStateMachine,
        _ map: borrowing PagemapScan?
    ) -> UInt {
        guard let end = machine.spans.find(page.start)?.range.end, end > page.end else { return page.end }
        // Not `map!`: Swift 6.3 crashes on that when it optimizes.
        switch map {
        case .some(let map):
            do throws(UserfaultError) {
                let mapped = try map.firstMapped(in: AddressRange(start: page.end, end: end))
                return mapped.map { region.pageSize.roundDown($0) } ?? end
            } catch {
                return page.end
            }
        case nil: return page.end
        }
    }
}
