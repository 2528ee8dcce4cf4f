import UserfaultPager

/// A source that says why its pages cannot be loaded.
struct ReportingSource<Base: PageSource & ~Copyable>: ~Copyable, PageSource {
    private let base: Base
    private let log: ReportLog

    init(_ base: consuming Base, _ log: ReportLog) {
        self.base = base
        self.log = log
    }

    var isSlow: Bool { base.isSlow }
    var isOftenReady: Bool { base.isOftenReady }
    var fillsFile: Bool { base.fillsFile }
    var handling: PageHandling { base.handling }

    func load(offset: Int, into pages: inout OutputRawSpan) throws(Base.Failure) -> PageReply {
        do throws(Base.Failure) {
            let reply = try base.load(offset: offset, into: &pages)
            log.noteLoaded()
            return reply
        } catch {
            log.noteNotLoaded(offset: offset, "\(error)")
            throw error
        }
    }

    func loadIfReady(offset: Int, into pages: inout OutputRawSpan) -> PageReply? {
        let reply = base.loadIfReady(offset: offset, into: &pages)
        if reply != nil { log.noteLoaded() }
        return reply
    }

    func extent(from offset: Int) -> Range<Int>? { base.extent(from: offset) }
    func hand(_ request: consuming PageRequest) { base.hand(request) }
    func forget(offset: Int, count: Int) { base.forget(offset: offset, count: count) }
}
