import UserfaultFD

/// Bytes of a base page.
let pageBytes = PageSize.base.bytes

extension AddressRange {
    /// Loads a byte, on the calling thread.
    func load(_ offset: Int) -> UInt8 {
        UnsafeRawPointer(bitPattern: start + UInt(offset))!.load(as: UInt8.self)
    }

    /// Loads a word, on the calling thread.
    func loadWord(_ offset: Int) -> UInt64 {
        UnsafeRawPointer(bitPattern: start + UInt(offset))!.load(as: UInt64.self)
    }

    /// Loads half a word, on the calling thread.
    func load32(at offset: Int) -> UInt32 {
        UnsafeRawPointer(bitPattern: start + UInt(offset))!.load(as: UInt32.self)
    }

    /// Stores a byte, on the calling thread.
    func store(_ byte: UInt8, at offset: Int) {
        UnsafeMutableRawPointer(bitPattern: start + UInt(offset))!.storeBytes(of: byte, as: UInt8.self)
    }
}
