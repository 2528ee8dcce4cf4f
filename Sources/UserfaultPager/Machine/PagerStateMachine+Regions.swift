internal import UserfaultFD

// What is asked of a region as a whole: to be finished, looked through, or loaded ahead of its faults.

extension PagerStateMachine {
    /// The first page whose fate is open, from an address on.
    func firstUnfilledPage(from address: UInt) -> AddressRange? {
        for index in 0..<spans.count {
            let span = spans[index]
            guard span.range.end > address, let states = span.states else { continue }
            for page in span.page(at: max(span.range.start, address))..<(span.range.count >> span.region.pageShift)
            where states[page].isDisjoint(with: .decided) {
                let size = span.region.pageSize.bytes
                return AddressRange(start: span.range.start &+ UInt(page << span.region.pageShift), count: size)
            }
        }
        return nil
    }

    /// What is left to do in a region.
    enum Unfilled {
        /// Nothing.
        case none
        /// Another service has the page at this address in hand.
        case busy(UInt)
        case claimed(Claim)
    }

    /// Takes pages of a region in hand whose fate is open: neither filled nor poisoned nor removed.
    ///
    /// - Parameters:
    ///   - address: Where to begin looking.
    ///   - count: The most pages to take.
    func claimUnfilled(of region: RegionReference, from address: UInt, count: Int) -> Unfilled {
        for index in 0..<spans.count {
            let span = spans[index]
            guard span.region == region, span.range.end > address, let states = span.states else { continue }
            let start = max(span.range.start, address)
            for page in span.page(at: start)..<(span.range.count >> region.pageShift)
            where states[page].isDisjoint(with: .decided) {
                let here = span.range.start &+ UInt(page << region.pageShift)
                // Of a page that is in hand the fate is open too: not a fault left to somebody, so no `awaited`.
                guard states.claimUnlessClaimed(page) else { return .busy(here) }
                var claim = Claim(
                    range: AddressRange(start: here, count: region.pageSize.bytes),
                    states: states.advanced(by: page), region: region, offset: span.offset + page << region.pageShift,
                    content: .source, isAwaited: true, changes: changes)
                extend(&claim, by: count - 1)
                return .claimed(claim)
            }
        }
        return .none
    }

    /// Whether a page of a region was written.
    func hasWritten(of region: RegionReference) -> Bool {
        for index in 0..<spans.count where spans[index].region == region {
            let span = spans[index]
            guard let states = span.states else { continue }
            for page in 0..<(span.range.count >> region.pageShift) where states[page].contains(.written) {
                return true
            }
        }
        return false
    }

    /// Adds the pages of a region that were written.
    func findWritten(of region: RegionReference, _ written: inout [WrittenPage]) {
        for index in 0..<spans.count where spans[index].region == region {
            let span = spans[index]
            guard let states = span.states else { continue }
            let first = states.distance(from: region.states)
            for page in 0..<(span.range.count >> region.pageShift) where states[page].contains(.written) {
                let size = region.pageSize.bytes
                written.append(WrittenPage(number: first + page, range: span.range.part(at: page * size, count: size)))
            }
        }
    }

    /// Where the page is that begins at an offset of the source.
    func address(ofOffset offset: Int) -> UInt? {
        for index in 0..<spans.count {
            let span = spans[index]
            guard span.states != nil, offset >= span.offset, offset - span.offset < span.range.count else { continue }
            return span.region.pageSize.roundDown(span.range.start &+ UInt(offset - span.offset))
        }
        return nil
    }
}

/// A page that was written.
struct WrittenPage {
    /// In its region.
    let number: Int
    /// Where it is now.
    let range: AddressRange
}
