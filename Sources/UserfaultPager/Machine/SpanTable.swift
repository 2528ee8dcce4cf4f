internal import UserfaultFD

/// Neighbouring pages of one descriptor that are served alike.
struct Span {
    var range: AddressRange
    var region: RegionReference
    /// The states of its pages.
    ///
    /// None for memory that a move left behind, every page of which is zeros.
    var states: PageStates?
    /// Where its first page begins in the source, in bytes.
    var offset: Int

    @inline(__always)
    func page(at address: UInt) -> Int {
        Int(bitPattern: (address &- range.start) &>> UInt(bitPattern: region.pageShift))
    }

    var pages: Int { range.count &>> region.pageShift }

    /// The first pages, from a number on, for which the source has data; `nil` if only zeros follow.
    func dataPages(from page: Int) -> Range<Int>? {
        guard page < pages, let data = region.data(from: offset + page << region.pageShift) else { return nil }
        let first = max(page, (data.lowerBound - offset) >> region.pageShift)
        let end = min(pages, (data.upperBound - offset) >> region.pageShift)
        return first < end ? first..<end : nil
    }

    /// How far it is from one page to another for which the source has data, or to the end, in bytes.
    func bytesToData(from address: UInt) -> Int {
        let page = page(at: address)
        return ((dataPages(from: page + 1)?.lowerBound ?? pages) - page) << region.pageShift
    }

    /// The first pages whose fate is open, from a number on.
    ///
    /// - Parameter done: What decides a page's fate.
    func openPages(from page: Int, _ states: PageStates, done: PageState, limit: Int) -> Range<Int>? {
        var page = page
        while let data = dataPages(from: page) {
            page = data.lowerBound
            while page < data.upperBound, !states[page].isDisjoint(with: done) { page += 1 }
            guard page < data.upperBound else { continue }
            var end = page + 1
            while end - page < limit, end < data.upperBound, states[end].isDisjoint(with: done) { end += 1 }
            return page..<end
        }
        return nil
    }

    /// The part of the span that lies in a range, which is aligned to its pages and overlaps it.
    func part(in other: AddressRange) -> Span {
        let common = range.intersection(other)
        let skipped = Int(common.start &- range.start)
        return Span(
            range: common, region: region, states: states?.advanced(by: skipped >> region.pageShift),
            offset: offset + skipped)
    }
}

/// The spans of one descriptor, by address.
///
/// Looking up needs no lock against other look-ups. Room is mapped, not taken from the heap: the table changes while
/// another thread may be inside `fork` and hold the heap's locks.
@safe
struct SpanTable: ~Copyable {
    private var memory: Mapping
    private(set) var count = 0

    init(capacity: Int = 64) throws(UserfaultError) {
        memory = try Mapping(anonymous: max(1, capacity) * MemoryLayout<Span>.stride)
    }

    deinit {
        for index in 0..<count { self[index].region.countReferences(-1) }
    }

    /// Forgets the span that starts at an address.
    mutating func removeSpan(startingAt address: UInt) {
        let index = firstIndex(endingBehind: address)
        guard index < count, self[index].range.start == address else { return }
        self[index].region.countReferences(-1)
        unsafe (spans + index).update(from: spans + index + 1, count: count - index - 1)
        count -= 1
    }

    private var spans: UnsafeMutablePointer<Span> {
        unsafe memory.unsafeBaseAddress.assumingMemoryBound(to: Span.self)
    }

    subscript(index: Int) -> Span { unsafe spans[index] }

    /// The first span that ends behind an address.
    private func firstIndex(endingBehind address: UInt) -> Int {
        var low = 0
        var high = count
        while low < high {
            let middle = (low + high) / 2
            if unsafe spans[middle].range.end > address { high = middle } else { low = middle + 1 }
        }
        return low
    }

    /// The span that holds an address.
    @inline(__always)
    func find(_ address: UInt) -> Span? {
        let index = firstIndex(endingBehind: address)
        guard index < count, unsafe spans[index].range.start <= address else { return nil }
        return unsafe spans[index]
    }

    /// The last span in front of an address and the first one behind it, where no span has the address.
    func neighbours(of address: UInt) -> (before: Span?, after: Span?) {
        let index = firstIndex(endingBehind: address)
        return (index > 0 ? self[index - 1] : nil, index < count ? self[index] : nil)
    }

    /// Where the page with a state is now: the way back from a page to its address.
    func address(of state: PageStates) -> UInt? {
        for index in 0..<count {
            let span = self[index]
            guard let states = span.states else { continue }
            let page = state.distance(from: states)
            if page >= 0, page < span.range.count >> span.region.pageShift {
                return span.range.start &+ UInt(page << span.region.pageShift)
            }
        }
        return nil
    }

    func overlaps(_ range: AddressRange) -> Bool {
        let index = firstIndex(endingBehind: range.start)
        return index < count && self[index].range.overlaps(range)
    }

    /// The parts of the spans that lie in a range, in order.
    func forEach(in range: AddressRange, _ body: (Span) -> Void) {
        var index = firstIndex(endingBehind: range.start)
        while index < count, self[index].range.start < range.end {
            body(self[index].part(in: range))
            index += 1
        }
    }

    /// The first part of a span that lies in a range.
    func firstPart(in range: AddressRange) -> Span? {
        let index = firstIndex(endingBehind: range.start)
        guard index < count, self[index].range.overlaps(range) else { return nil }
        return self[index].part(in: range)
    }

    /// Adds a span that overlaps no other.
    mutating func insert(_ span: Span) throws(UserfaultError) {
        let index = firstIndex(endingBehind: span.range.start)
        if span.states == nil, joinZeros(span, at: index) { return }
        try reserve(1)
        unsafe (spans + index + 1).update(from: spans + index, count: count - index)
        unsafe spans[index] = span
        count += 1
        span.region.countReferences(1)
    }

    /// Makes memory without states a part of its neighbours that have none either: there is nothing to tell them apart by.
    private mutating func joinZeros(_ span: Span, at index: Int) -> Bool {
        func isAlike(_ other: Int) -> Bool {
            other >= 0 && other < count && self[other].region == span.region && self[other].states == nil
        }
        let follows = isAlike(index - 1) && self[index - 1].range.end == span.range.start
        let precedes = isAlike(index) && self[index].range.start == span.range.end
        guard follows || precedes else { return false }
        let start = follows ? self[index - 1].range.start : span.range.start
        let end = precedes ? self[index].range.end : span.range.end
        if follows, precedes { removeSpan(startingAt: self[index].range.start) }
        unsafe spans[follows ? index - 1 : index].range = AddressRange(start: start, end: end)
        return true
    }

    /// Forgets a range.
    ///
    /// A span that sticks out on both sides becomes two.
    mutating func remove(_ range: AddressRange) throws(UserfaultError) {
        try reserve(1)
        var index = firstIndex(endingBehind: range.start)
        while index < count, self[index].range.start < range.end {
            let span = self[index]
            let before = AddressRange(start: span.range.start, end: range.start)
            let behind = AddressRange(start: range.end, end: span.range.end)
            unsafe (spans + index).update(from: spans + index + 1, count: count - index - 1)
            count -= 1
            if !before.isEmpty {
                try insert(span.part(in: before))
                index += 1
            }
            if !behind.isEmpty { try insert(span.part(in: behind)) }
            span.region.countReferences(-1)
        }
    }

    /// Makes room for further spans.
    mutating func reserve(_ further: Int) throws(UserfaultError) {
        let needed = (count + further) * MemoryLayout<Span>.stride
        guard needed > memory.count else { return }
        let larger = try Mapping(anonymous: max(needed, memory.count * 2))
        unsafe larger.unsafeBaseAddress.copyMemory(
            from: memory.unsafeBaseAddress, byteCount: count * MemoryLayout<Span>.stride)
        memory = larger
    }
}
