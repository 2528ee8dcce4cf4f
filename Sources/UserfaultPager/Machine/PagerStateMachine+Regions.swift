internal import UserfaultFD

// What is asked of a region as a whole: to be finished, looked through, or loaded ahead of its faults.

extension PagerStateMachine {
    /// A span of a region, or `nil` where there is none left.
    func firstSpan(of region: RegionReference) -> Span? { firstSpan { $0 == region } }

    /// A span of a region that is meant, or `nil` where there is none left.
    func firstSpan(where isMeant: (RegionReference) -> Bool) -> Span? {
        for index in 0..<spans.count where isMeant(spans[index].region) { return spans[index] }
        return nil
    }

    /// The first pages whose fate is open, from an address on.
    ///
    /// - Parameters:
    ///   - region: One region, or `nil` for all.
    ///   - passed: Pages that are passed over as well, besides those that are decided.
    func firstUnfilledRun(
        of region: RegionReference?, from address: UInt, pages limit: Int, passingOver passed: PageState = []
    ) -> UnfilledRun? {
        let done = PageState.decided.union(passed)
        for index in 0..<spans.count {
            let span = spans[index]
            guard span.range.end > address, region == nil || span.region == region, let states = span.states else {
                continue
            }
            let first = span.page(at: max(span.range.start, address))
            guard let open = span.openPages(from: first, states, done: done, limit: limit) else { continue }
            let start = span.range.start &+ UInt(open.lowerBound << span.region.pageShift)
            return UnfilledRun(
                range: AddressRange(start: start, count: open.count << span.region.pageShift),
                states: states.advanced(by: open.lowerBound), region: span.region)
        }
        return nil
    }

    /// How many pages of a region there are whose fate is open.
    func countUnfilled(of region: RegionReference) -> Int {
        var count = 0
        for index in 0..<spans.count where spans[index].region == region {
            guard let states = spans[index].states else { continue }
            var page = 0
            while let open = spans[index].openPages(from: page, states, done: .decided, limit: .max) {
                count += open.count
                page = open.upperBound
            }
        }
        return count
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
            let first = span.page(at: max(span.range.start, address))
            if let page = span.openPages(from: first, states, done: .decided, limit: 1)?.lowerBound {
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

    /// Goes through the written pages of a region, and forgets that they were.
    ///
    /// - Parameters:
    ///   - address: Where to begin.
    ///   - limit: The most pages to look at.
    ///   - body: Gets pages that follow each other; `false` ends the sweep.
    /// - Returns: Where to go on, or `nil` at the end.
    func sweepWritten(
        of region: RegionReference, from address: UInt, pages limit: Int, _ body: (WrittenRun) -> Bool
    ) -> UInt? {
        var looked = 0
        for index in 0..<spans.count where spans[index].region == region && spans[index].range.end > address {
            let span = spans[index]
            guard let states = span.states else { continue }
            let end = span.range.count >> region.pageShift
            let number = states.distance(from: region.states)
            var page = span.page(at: max(span.range.start, address))
            func place(_ page: Int) -> UInt { span.range.start &+ UInt(page << region.pageShift) }
            while page < end {
                guard looked < limit else { return place(page) }
                looked += 1
                guard states[page].contains(.written) else {
                    page += 1
                    continue
                }
                var count = 1
                while page + count < end, count < 512, states[page + count].contains(.written) { count += 1 }
                for written in page..<page + count { states.update(written) { $0.subtracting(.written) } }
                let range = AddressRange(start: place(page), count: count << region.pageShift)
                looked += count
                let goesOn = body(WrittenRun(first: number + page, count: count, range: range))
                page += count
                guard goesOn else { return place(page) }
            }
        }
        return nil
    }

    /// The first pages of a region that end after an address.
    func span(of region: RegionReference, from address: UInt) -> Span? {
        for index in 0..<spans.count where spans[index].region == region && spans[index].range.end > address {
            return spans[index]
        }
        return nil
    }

    /// The first pages that are a part of the source, whole.
    ///
    /// - Parameters:
    ///   - offsets: The part, in bytes.
    ///   - region: The pages' region, or `nil` for any.
    ///   - address: Where to begin.
    func pages(
        at offsets: Range<Int>, of region: RegionReference?, from address: UInt
    ) -> (span: Span, pages: AddressRange)? {
        for index in 0..<spans.count where spans[index].range.end > address {
            let span = spans[index]
            guard span.states != nil, region == nil || span.region == region else { continue }
            let part = offsets.clamped(to: span.offset..<span.offset + span.range.count)
            guard !part.isEmpty else { continue }
            let size = UInt(span.region.pageSize.bytes)
            let first = span.range.start &+ UInt(part.lowerBound - span.offset)
            let last = span.range.start &+ UInt(part.upperBound - 1 - span.offset)
            let start = max(first & ~(size - 1), address)
            let end = (last & ~(size - 1)) &+ size
            if start < end { return (span, AddressRange(start: start, end: end)) }
        }
        return nil
    }
}

/// Pages whose fate is open and that follow each other.
struct UnfilledRun {
    let range: AddressRange
    let states: PageStates
    let region: RegionReference
}

/// Pages that were written and follow each other.
struct WrittenRun {
    /// The first one's number in its region.
    let first: Int
    let count: Int
    /// Where they are now.
    let range: AddressRange
}
