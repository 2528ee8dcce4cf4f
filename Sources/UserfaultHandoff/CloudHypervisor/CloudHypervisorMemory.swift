internal import UserfaultFD

/// The memory of one slot while it is restored: a file that is shared with Cloud Hypervisor, and what goes into it.
final class CloudHypervisorMemory {
    let slot: CloudHypervisorLayout.Slot
    let shared: Memfd
    private let saved: OpenFile
    /// The pages that were loaded once.
    ///
    /// If they are missing again, the guest has given them back: they are zeros.
    private var loaded: [Bool]

    private static var pageBytes: Int { PageSize.base.bytes }

    init(_ slot: CloudHypervisorLayout.Slot, _ saved: OpenFile) throws(UserfaultError) {
        self.slot = slot
        self.saved = saved
        shared = try Memfd(name: "cloud-hypervisor-\(slot.number)", count: slot.fileEnd)
        loaded = Array(repeating: false, count: slot.byteCount / Self.pageBytes)
    }

    /// Loads everything.
    func fill() throws(UserfaultError) {
        try CloudHypervisorFolder.copy(saved.file, from: 0, to: shared.descriptor, at: slot.fileOffset, slot.byteCount)
    }

    /// Loads the pages of a part that are missing.
    ///
    /// Cloud Hypervisor asks twice if two threads touch a page: by then the guest may have written it.
    ///
    /// - Parameters:
    ///   - start: Where the part begins in the slot, in bytes.
    /// - Throws: ``UserfaultError``: `ENODATA` if the saved file has become shorter.
    func load(_ start: Int, _ count: Int) throws(UserfaultError) {
        var bytes = [UInt8](repeating: 0, count: Self.pageBytes)
        for page in start / Self.pageBytes..<(start + count) / Self.pageBytes {
            let offset = page * Self.pageBytes
            let place = slot.fileOffset + offset
            if let data = try shared.dataRange(from: place), data.lowerBound < place + Self.pageBytes { continue }
            if loaded[page] {
                try shared.allocate(at: place, count: Self.pageBytes)
                continue
            }
            var span = bytes.mutableSpan
            var room = unsafe span.mutableBytes
            try saved.file.read(into: &room, at: offset)
            try unsafe shared.write(bytes.span.bytes, at: place)
            loaded[page] = true
        }
    }

    /// Whether writing one page to a memory file makes others appear: they would be zeros, and nobody would ask for them.
    static func hasHugeMemoryFiles() throws(UserfaultError) -> Bool {
        let file = try Memfd(name: "probe", count: 4 << 20)
        try unsafe file.write([UInt8](repeating: 1, count: pageBytes).span.bytes, at: 0)
        return try file.dataRange(from: 0)?.upperBound != pageBytes
    }
}
