import CBenchBaseline
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

    /// The time of a first touch of each page where nobody serves it: of fresh memory, or of the file mapped elsewhere.
    func firstTouch(writing: Bool) throws -> UInt64 {
        switch alias {
        case .some(let alias):
            try alias.advise(.dontNeed)
            return Self.touch(alias, writing: writing)
        case .none:
            let fresh = try Mapping(anonymous: bytes)
            try fresh.advise(.noHugePage)
            return Self.touch(fresh, writing: writing)
        }
    }

    private static func touch(_ mapping: borrowing Mapping, writing: Bool) -> UInt64 {
        let start = cbb_now()
        cbb_touch(
            UInt64(mapping.range.start), mapping.pageCount, mapping.pageSize.bytes, nil, writing ? 1 : 0, nil)
        return cbb_now() - start
    }

    /// Gives back to this machine what the host may have taken from its free memory, by using and freeing as much.
    ///
    /// A guest reports free memory to its host a while after it was freed; who allocates it next pays for its return.
    static func warmHost(_ bytes: Int = 32 << 20) throws {
        let scratch = try Mapping(anonymous: bytes)
        try scratch.advise(.hugePage)
        cbb_touch(UInt64(scratch.range.start), bytes / 4096, 4096, nil, 1, nil)
        try scratch.unmap()
    }
}

/// Memory that closures keep.
final class Kept: Sendable {
    let mapping: Mapping
    init(_ mapping: consuming Mapping) { self.mapping = mapping }
}

/// A userfaultfd that several closures use.
final class Registered: Sendable {
    let uffd: UserfaultFD
    init(_ uffd: consuming UserfaultFD) { self.uffd = uffd }
}
