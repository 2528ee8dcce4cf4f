internal import UserfaultFD

/// Which pages of a task one dump has, and where they are: `pagemap-PID.img`.
struct CRIUPagemap {
    /// Pages that follow each other, in memory and where their content is.
    struct Run: Hashable {
        /// The first page's address.
        let start: UInt64
        /// In bytes, whole pages.
        let count: UInt64
        let place: Place
        /// Whether the pages are left to the daemon when the task is restored lazily.
        let isLazy: Bool

        var end: UInt64 { start + count }
    }

    enum Place: Hashable {
        /// In this dump's pages, at this offset.
        case file(offset: UInt64)
        /// In the parent dump.
        case parent
        /// With the page server.
        case server
    }

    /// The number of the file of pages: `pages-N.img`.
    let pagesID: UInt32
    /// In the order of their addresses; none overlap.
    let runs: [Run]
    /// How long the file of pages has to be.
    let bytesInFile: UInt64

    private struct Flags: OptionSet {
        let rawValue: UInt64
        static var parent: Flags { Flags(rawValue: 1) }
        static var lazy: Flags { Flags(rawValue: 2) }
        static var present: Flags { Flags(rawValue: 4) }
    }

    init(_ bytes: ArraySlice<UInt8>) throws(CRIUImageError.Reason) {
        var file = try CRIUImageFile(bytes, .pagemap)
        guard var head = try file.next() else { throw .missingField("pages_id") }
        var identifier: UInt64?
        while let field = try head.next() {
            if case .number(1, let value) = field { identifier = value }
        }
        guard let identifier, let pagesID = UInt32(exactly: identifier) else { throw .missingField("pages_id") }
        self.pagesID = pagesID
        var runs: [Run] = []
        var offset: UInt64 = 0
        while var message = try file.next() {
            let run = try Self.run(&message, at: offset)
            if let last = runs.last, last.end > run.start { throw .badRange }
            if case .file = run.place { offset += run.count }
            guard offset <= UInt64(Int.max) else { throw .badRange }
            Self.append(run, to: &runs)
        }
        self.runs = runs
        bytesInFile = offset
    }

    private static func run(
        _ message: inout ProtobufReader, at offset: UInt64
    ) throws(CRIUImageError.Reason) -> Run {
        var address: UInt64?
        var pages: UInt64?
        var isInParent = false
        var flags: Flags?
        while let field = try message.next() {
            switch field {
            case .number(1, let value): address = value
            case .number(2, let value): pages = value
            case .number(3, let value): isInParent = value != 0
            case .number(4, let value): flags = Flags(rawValue: value)
            default: break
            }
        }
        guard let address else { throw .missingField("vaddr") }
        guard let pages else { throw .missingField("nr_pages") }
        let size = UInt64(PageSize.base.bytes)
        let (count, overflows) = pages.multipliedReportingOverflow(by: size)
        guard pages > 0, !overflows, address % size == 0, address <= UInt64(Int.max),
            count <= UInt64(Int.max) - address
        else { throw .badRange }
        // Before there were flags, what was not in the parent was in the file.
        let known = flags ?? (isInParent ? .parent : .present)
        let place: Place
        if isInParent || known.contains(.parent) {
            place = .parent
        } else if known.contains(.present) {
            place = .file(offset: offset)
        } else if known.contains(.lazy) {
            place = .server
        } else {
            throw .nowhere(address: address)
        }
        return Run(start: address, count: count, place: place, isLazy: known.contains(.lazy))
    }

    /// CRIU writes runs of at most 1 MiB: many are one.
    private static func append(_ run: Run, to runs: inout [Run]) {
        if let last = runs.last, last.end == run.start, last.isLazy == run.isLazy {
            switch (last.place, run.place) {
            case (.file(let first), .file(let second)) where first + last.count == second: break
            case (.parent, .parent), (.server, .server): break
            default: return runs.append(run)
            }
            runs[runs.count - 1] = Run(
                start: last.start, count: last.count + run.count, place: last.place, isLazy: last.isLazy)
        } else {
            runs.append(run)
        }
    }

    /// The run that an address lies in, or the first behind it; `runs.count` where there is none.
    func index(of address: UInt64) -> Int {
        var low = 0
        var high = runs.count
        while low < high {
            let middle = (low + high) / 2
            if runs[middle].end <= address { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
