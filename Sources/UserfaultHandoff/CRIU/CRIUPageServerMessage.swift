internal import UserfaultFD

/// A message of CRIU's protocol for pages: 24 bytes in front of pages, or alone.
///
/// CRIU up to 4.1.1 (and 4.2's first releases) counts pages in 32 bits. Later ones count them in 64, in a message of 32
/// bytes, and no version is exchanged: which one a server speaks has to be known.
struct CRIUPageServerMessage: Hashable {
    /// How a message is laid out.
    enum Layout: Hashable, Sendable {
        /// 24 bytes.
        case narrow
        /// 32 bytes.
        case wide

        var byteCount: Int { self == .narrow ? 24 : 32 }
    }

    enum Command: UInt16 {
        /// Pages, with the flags of a pagemap.
        case add = 6
        /// A request for pages.
        case get = 7
        /// The end, which the server confirms with four bytes.
        case close = 0x1023
        /// The end.
        case forceClose = 0x1024
    }

    struct Flags: OptionSet, Hashable {
        let rawValue: UInt16
        static var present: Flags { Flags(rawValue: 4) }
    }

    var command: UInt16
    var flags: Flags = []
    var pages: UInt64
    var address: UInt64
    /// The task.
    var identifier: UInt64

    init(_ command: Command, pages: Int = 0, address: UInt64 = 0, task: Int32 = 0) {
        self.command = command.rawValue
        self.pages = UInt64(pages)
        self.address = address
        identifier = task == 0 ? 0 : UInt64(task)
    }

    /// Reads one.
    ///
    /// - Parameter bytes: As many as the layout has.
    init(_ bytes: ArraySlice<UInt8>, _ layout: Layout) {
        precondition(bytes.count == layout.byteCount, "a message has a length of its own")
        let word = littleEndian(bytes.prefix(4))
        command = UInt16(truncatingIfNeeded: word)
        flags = Flags(rawValue: UInt16(truncatingIfNeeded: word >> 16))
        let width = layout == .narrow ? 4 : 8
        var rest = bytes.dropFirst(width)
        pages = littleEndian(rest.prefix(width))
        rest = rest.dropFirst(width)
        address = littleEndian(rest.prefix(8))
        identifier = littleEndian(rest.dropFirst(8))
    }

    func bytes(_ layout: Layout) -> [UInt8] {
        let width = layout == .narrow ? 4 : 8
        var bytes: [UInt8] = []
        bytes.reserveCapacity(layout.byteCount)
        let word = UInt64(command) | UInt64(flags.rawValue) << 16
        for (value, width) in [(word, width), (pages, width), (address, 8), (identifier, 8)] {
            for position in 0..<width { bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * position))) }
        }
        return bytes
    }
}
