internal import Synchronization
internal import UserfaultFD

// Made by the thread that starts a pager, touched by one of its own, ended by the thread that stops the pager.

/// Memory of the engine's own that brings threads back from `read(2)`, which nothing else interrupts: one page for each.
struct Sentinel: ~Copyable, Sendable {
    /// The number of a region that is none of the user's.
    static var regionID: Int { 0 }

    private let mapping: Mapping
    private let region: RegionReference

    private init(_ mapping: consuming Mapping, _ region: RegionReference) {
        self.mapping = mapping
        self.region = region
    }

    /// Registers the pages as zeros, which every handler knows how to serve.
    static func make(for memory: ServedMemory, handlers: Int) throws(UserfaultError) -> Sentinel {
        let mapping = try Mapping(anonymous: handlers * PageSize.base.bytes)
        let range = mapping.range
        let region = RegionReference(try RegionRecord(id: regionID, count: range.count, options: RegionOptions()))
        let sentinel = Sentinel(mapping, region)
        try memory.excludingOthers { (uffd, machine) throws(UserfaultError) in
            // Should it fail, nothing refers to the region.
            _ = try uffd.register(range, modes: .missing)
            try machine.add(Span(range: range, region: region, states: nil, offset: 0))
        }
        return sentinel
    }

    deinit {
        unsafe region.destroy()
    }

    /// Touches the pages one after the other: each touch brings one handler back.
    ///
    /// Where they have all come back already, it waits for ``end(in:)``.
    func touchAll() {
        for page in 0..<mapping.pageCount {
            // A store: the compiler may leave out a load that nobody looks at.
            unsafe UnsafeMutableRawPointer(bitPattern: mapping.page(page).start)!.storeBytes(of: 1, as: UInt8.self)
        }
    }

    /// Lets go who touches it: nobody serves it any more, and a fork's child may keep the descriptor open.
    func end(in memory: ServedMemory) {
        memory.withDescriptor { uffd in
            uffd.letGo(of: mapping.range)
            try? uffd.wake(mapping.range)
        }
    }
}

/// A sentinel, shared with the thread that touches it.
final class SentinelBox: Sendable {
    let sentinel: Sentinel
    let memory: ServedMemory

    init(_ sentinel: consuming Sentinel, of memory: ServedMemory) {
        self.sentinel = sentinel
        self.memory = memory
    }
}
