import Synchronization
import UserfaultFD

@testable import UserfaultPager

/// Memory that many threads of a storm read while another drops pages of it.
///
/// What a reader must find follows from what the other said before and after: a removal that was over before the page
/// was read shows zeros, one that had not begun when the page had been read shows what the source said.
final class CommonGround: @unchecked Sendable {
    private enum Removal: UInt8, AtomicRepresentable {
        case none, begun, over
    }

    private static let pages = 128
    /// Shared by those who read, taken alone to map and unmap.
    private let lock: ReadWriteLock
    private let removals = UnsafeMutablePointer<Atomic<Removal>>.allocate(capacity: pages)
    private var memory: AddressRange?
    private var offset = 0

    init() {
        do { lock = try ReadWriteLock() } catch { fatalError("no lock: \(error)") }
        for page in 0..<Self.pages { (removals + page).initialize(to: Atomic(.none)) }
    }

    deinit {
        removals.deallocate()
    }

    /// Reads some pages, in order.
    ///
    /// - Returns: What was wrong, or `nil`.
    func read(_ random: inout SplitMix) -> String? {
        lock.lockForReading()
        defer { lock.endReading() }
        guard let memory else { return nil }
        let first = random.below(Self.pages)
        for page in first..<min(Self.pages, first + 8) {
            let before = removals[page].load(ordering: .sequentiallyConsistent)
            let found = memory.loadWord(page * pageBytes + 8 * random.below(pageBytes / 8))
            let after = removals[page].load(ordering: .sequentiallyConsistent)
            let content = NumberedSource.word(offset + page * pageBytes)
            let isRight = found == content && before != .over || found == 0 && after != .none
            guard isRight else { return "page \(page) holds \(found), from \(before) to \(after)" }
        }
        return nil
    }

    /// One life of the memory: mapped, dropped in pieces while others read it, unmapped.
    ///
    /// - Returns: What was wrong, or `nil`.
    func live(_ pager: Pager<HaltingSource>, _ random: inout SplitMix) -> String? {
        do {
            let isFile = random.below(2) == 0
            let mapping =
                isFile
                ? try Mapping(Memfd(count: Self.pages * pageBytes)) : try Mapping(anonymous: Self.pages * pageBytes)
            let newOffset = random.below(1 << 20) * pageBytes
            let maximum = random.below(3) * 8
            try pager.add(
                mapping.range, offset: newOffset, options: RegionOptions(readAhead: .adaptive(maximumPages: maximum)))
            let range = mapping.release()
            show(range, newOffset)
            for _ in 0..<48 { drop(range, isFile ? .remove : .dontNeed, &random) }
            show(nil, 0)
            try? AddressSpace.unmap(range)
            return nil
        } catch {
            return "\(error)"
        }
    }

    private func drop(_ range: AddressRange, _ advice: Advice, _ random: inout SplitMix) {
        let first = random.below(Self.pages)
        let dropped = first..<min(Self.pages, first + 1 + random.below(4))
        for page in dropped where removals[page].load(ordering: .relaxed) == .none {
            removals[page].store(.begun, ordering: .sequentiallyConsistent)
        }
        try? AddressSpace.advise(advice, range.part(at: first * pageBytes, count: dropped.count * pageBytes))
        for page in dropped { removals[page].store(.over, ordering: .sequentiallyConsistent) }
    }

    private func show(_ range: AddressRange?, _ newOffset: Int) {
        lock.lockForWriting()
        defer { lock.endWriting() }
        memory = range
        offset = newOffset
        for page in 0..<Self.pages { removals[page].store(.none, ordering: .relaxed) }
    }
}
