internal import UserfaultFD

/// Where each page of a task is, in a dump and its parents.
struct CRIUPageIndex {
    /// Where pages that follow each other are.
    enum Place: Hashable {
        /// They were never written: zeros.
        case zeros
        /// In the pages of a dump: 0 for the last one, 1 for its parent, and so on.
        case file(level: Int, offset: Int)
        /// With the page server.
        case server
    }

    struct Found: Hashable {
        let place: Place
        /// How far it is like that, in bytes.
        let count: Int
    }

    /// The pagemaps of the dump and its parents.
    let levels: [CRIUPagemap]

    /// Pages that are left to the daemon.
    let lazyPages: Int

    init(_ levels: [CRIUPagemap]) {
        self.levels = levels
        let size = UInt64(PageSize.base.bytes)
        lazyPages = Int(levels[0].runs.lazy.filter(\.isLazy).reduce(0) { $0 + $1.count / size })
    }

    /// Where the page at an address is, and those that follow it.
    ///
    /// - Parameters:
    ///   - address: A page's.
    ///   - limit: How far to look, in bytes; at least a page.
    /// - Throws: ``CRIUImageError/Reason/noParent(address:)`` where a dump counts on a parent that does not have the page.
    func find(_ address: UInt64, limit: Int) throws(CRIUImageError.Reason) -> Found {
        var count = UInt64(limit)
        for level in levels.indices {
            let pagemap = levels[level]
            let index = pagemap.index(of: address)
            guard index < pagemap.runs.count else {
                guard level == 0 else { throw .noParent(address: address) }
                return Found(place: .zeros, count: Int(count))
            }
            let run = pagemap.runs[index]
            if run.start > address {
                guard level == 0 else { throw .noParent(address: address) }
                return Found(place: .zeros, count: Int(min(count, run.start - address)))
            }
            count = min(count, run.end - address)
            switch run.place {
            case .file(let offset):
                return Found(place: .file(level: level, offset: Int(offset + (address - run.start))), count: Int(count))
            case .server: return Found(place: .server, count: Int(count))
            case .parent: continue
            }
        }
        throw .noParent(address: address)
    }

    /// The addresses in a range whose pages are left to the daemon, each as far as it goes.
    func lazyRanges(in range: AddressRange) -> [AddressRange] {
        var ranges: [AddressRange] = []
        var index = levels[0].index(of: UInt64(range.start))
        while index < levels[0].runs.count, levels[0].runs[index].start < UInt64(range.end) {
            let run = levels[0].runs[index]
            index += 1
            guard run.isLazy else { continue }
            let part = AddressRange(start: UInt(run.start), end: UInt(run.end)).intersection(range)
            if let last = ranges.last, last.end == part.start {
                ranges[ranges.count - 1] = AddressRange(start: last.start, end: part.end)
            } else {
                ranges.append(part)
            }
        }
        return ranges
    }
}
