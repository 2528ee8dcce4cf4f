import UserfaultFD

@testable import UserfaultPager

/// One thread of a storm: maps memory, reads it, changes it, and knows what it must hold.
struct Stormer {
    private static let pages = 96
    var random: SplitMix
    private let forks: Bool

    init(seed: UInt64, forks: Bool) {
        random = SplitMix(state: seed)
        self.forks = forks
    }

    /// One life of a mapping.
    ///
    /// - Returns: What was wrong, or `nil`.
    mutating func round(_ pager: Pager<HaltingSource>, _ ground: CommonGround) -> String? {
        do {
            let mapping = try Mapping(anonymous: Self.pages * pageBytes)
            let offset = random.below(1 << 20) * pageBytes
            let readAhead = [RegionOptions.ReadAhead.none, .adaptive(maximumPages: 8), .adaptive()][random.below(3)]
            let region = try pager.add(mapping.range, offset: offset, options: RegionOptions(readAhead: readAhead))
            var memory = mapping.release()
            defer { try? AddressSpace.unmap(memory) }
            var isZero = [Bool](repeating: false, count: Self.pages)
            for _ in 0..<random.below(6) {
                if let wrong = read(memory, offset, isZero) ?? ground.read(&random) { return wrong }
                change(&memory, &isZero)
                if forks, random.below(8) == 0, !child(memory, offset, isZero) { return "a child read something else" }
            }
            if let wrong = read(memory, offset, isZero) { return wrong }
            if random.below(4) == 0 {
                try pager.populate(region)
                if let wrong = read(memory, offset, isZero) { return wrong }
            }
            return nil
        } catch {
            return "\(error)"
        }
    }

    /// Reads some pages, in order or not.
    private mutating func read(_ memory: AddressRange, _ offset: Int, _ isZero: [Bool]) -> String? {
        let first = random.below(Self.pages)
        let stride = random.below(2) == 0 ? 1 : 17
        for step in 0..<random.below(Self.pages) {
            let page = (first + step * stride) % Self.pages
            let found = memory.loadWord(page * pageBytes + 8 * random.below(pageBytes / 8))
            let expected = isZero[page] ? 0 : NumberedSource.word(offset + page * pageBytes)
            if found != expected { return "page \(page) holds \(found) in place of \(expected)" }
        }
        return nil
    }

    private mutating func change(_ memory: inout AddressRange, _ isZero: inout [Bool]) {
        let first = random.below(Self.pages - 16)
        let count = 1 + random.below(16)
        switch random.below(3) {
        case 0:
            try? AddressSpace.advise(.dontNeed, memory.part(at: first * pageBytes, count: count * pageBytes))
            for page in first..<first + count { isZero[page] = true }
        case 1:
            guard let target = try? Mapping(anonymous: memory.count) else { return }
            if let moved = try? AddressSpace.move(memory, to: target.release().start) { memory = moved }
        default:
            break
        }
    }

    /// What a child reads of some pages.
    private func child(_ memory: AddressRange, _ offset: Int, _ isZero: [Bool]) -> Bool {
        let status = isZero.withUnsafeBufferPointer { isZero in
            inFork {
                for page in Swift.stride(from: 0, to: Self.pages, by: 5) {
                    let expected = isZero[page] ? 0 : NumberedSource.word(offset + page * pageBytes)
                    if memory.loadWord(page * pageBytes) != expected { return 1 }
                }
                return 0
            }
        }
        return status == 0
    }
}
