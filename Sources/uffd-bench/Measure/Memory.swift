import CBenchBaseline
import CUserfaultFD
import UserfaultFD

/// Memory that is filled and emptied again and again, with what it is filled from.
final class Memory: Sendable {
    enum Kind: Sendable { case anonymous, shared, hugePages }

    let kind: Kind
    let view: Mapping
    let source: Mapping
    private let alias: Mapping?

    /// Memory of so many pages, all missing; for ``Kind/shared`` all of them in the file.
    init(_ kind: Kind, pages: Int) throws {
        self.kind = kind
        let huge = kind == .hugePages ? PageSize.defaultHuge : nil
        let count = pages * (huge ?? .base).bytes
        source = try Mapping(anonymous: count)
        try source.advise(.noHugePage)
        cbb_touch(UInt64(source.range.start), count / 4096, 4096, nil, 1, nil)
        if kind == .shared {
            let file = try Memfd(name: "uffd-bench", count: count)
            let filled = try Mapping(file)
            cbb_touch(UInt64(filled.range.start), pages, 4096, nil, 1, nil)
            view = try Mapping(file)
            alias = consume filled
        } else {
            do throws(UserfaultError) {
                view = try Mapping(anonymous: count, hugePages: huge)
            } catch {
                throw Unavailable(reason: "not enough huge pages: \(error)")
            }
            alias = nil
            if kind == .anonymous { try view.advise(.noHugePage) }
        }
    }

    var base: UInt64 { UInt64(view.range.start) }
    var bytes: Int { view.count }
    var pages: Int { view.pageCount }
    var pageSize: Int { view.pageSize.bytes }

    /// Makes every page missing again; a file keeps its pages.
    func empty() throws { try view.advise(.dontNeed) }

    /// Brings every page in by writing to it, or by mapping the file's.
    func populate() { cbb_touch(base, pages, pageSize, nil, 1, nil) }

    /// Renews the source's pages, which MOVE has taken away.
    func refillSource() { cbb_touch(UInt64(source.range.start), bytes / 4096, 4096, nil, 1, nil) }
}
