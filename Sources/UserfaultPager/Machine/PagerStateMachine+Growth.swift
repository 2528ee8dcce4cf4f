internal import UserfaultFD

/// How far a region's mapping may have grown, upwards or downwards.
struct Growth {
    let region: RegionReference
    /// The last page that is known and all that may have come.
    private(set) var reach: AddressRange
    /// What may have come.
    private(set) var added: AddressRange
    let isUpwards: Bool

    fileprivate init(upwardsFrom span: Span, to end: UInt) {
        region = span.region
        isUpwards = true
        added = AddressRange(start: span.range.end, end: end)
        reach = AddressRange(start: span.range.end &- UInt(span.region.pageSize.bytes), end: end)
    }

    fileprivate init(downwardsFrom span: Span, to start: UInt) {
        region = span.region
        isUpwards = false
        added = AddressRange(start: start, end: span.range.start)
        reach = AddressRange(start: start, end: span.range.start &+ UInt(span.region.pageSize.bytes))
    }

    /// The same, further on.
    ///
    /// - Returns: `nil` at the end of all addresses.
    func widened(by count: Int) -> Growth? {
        var wider = self
        if isUpwards {
            let (end, overflow) = added.end.addingReportingOverflow(UInt(count))
            guard !overflow else { return nil }
            wider.added = AddressRange(start: added.start, end: end)
            wider.reach = AddressRange(start: reach.start, end: end)
        } else {
            let (start, overflow) = added.start.subtractingReportingOverflow(UInt(count))
            guard !overflow, start > 0 else { return nil }
            wider.added = AddressRange(start: start, end: added.end)
            wider.reach = AddressRange(start: start, end: reach.end)
        }
        return wider
    }
}

extension PagerStateMachine {
    /// The regions that may have grown over a page that is no region's: the neighbours.
    ///
    /// What the engine has for itself does not grow, and neither do huge pages. Takes no memory: a signal handler asks.
    func growth(to page: AddressRange) -> (upwards: Growth?, downwards: Growth?) {
        let (before, after) = spans.neighbours(of: page.start)
        let upwards = before.flatMap { $0.canGrow ? Growth(upwardsFrom: $0, to: page.end) : nil }
        let downwards = after.flatMap { $0.canGrow ? Growth(downwardsFrom: $0, to: page.start) : nil }
        return (upwards, downwards)
    }

    /// Whether nothing else is known where a region is to grow.
    func canGrow(_ growth: Growth) -> Bool { !spans.overlaps(growth.added) }

    /// Has a region reach over memory that has come to its mapping, which is zeros.
    mutating func grow(_ growth: Growth) throws(UserfaultError) {
        try add(Span(range: growth.added, region: growth.region, states: nil, offset: 0))
    }
}

extension Span {
    fileprivate var canGrow: Bool { region.id != Sentinel.regionID && !region.isHuge }
}
