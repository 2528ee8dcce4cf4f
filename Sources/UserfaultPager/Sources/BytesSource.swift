public import UserfaultFD

/// Bytes in memory, which the kernel copies from where they are. Behind their end there are zeros.
///
/// The bytes are held for as long as the pager lives, outside the heap, so that they are page-aligned.
public struct BytesSource: ~Copyable, PageSource {
    private let memory: Mapping?
    private let range: AddressRange

    /// Takes a copy of bytes.
    ///
    /// - Throws: ``UserfaultError`` with `ENOMEM`.
    public init(_ bytes: RawSpan) throws(UserfaultError) {
        guard bytes.byteCount > 0 else {
            memory = nil
            range = AddressRange(start: 0, count: 0)
            return
        }
        let copy = try Mapping(anonymous: bytes.byteCount)
        unsafe bytes.withUnsafeBytes { source in
            unsafe copy.unsafeBaseAddress.copyMemory(from: source.baseAddress!, byteCount: source.count)
        }
        range = copy.range
        memory = consume copy
    }

    public func load(offset: Int, into pages: inout OutputRawSpan) -> PageReply {
        guard offset < range.count else { return .zero }
        guard pages.freeCapacity <= range.count - offset else {
            // The content ends in these pages.
            let rest = unsafe UnsafeRawBufferPointer(
                start: UnsafeRawPointer(bitPattern: range.start + UInt(offset)), count: range.count - offset)
            unsafe append(rest.bytes, to: &pages)
            unsafe pages.append(repeating: 0, count: pages.freeCapacity, as: UInt8.self)
            return .data
        }
        return .memory(at: range.start + UInt(offset))
    }
}

/// Appends bytes, of which there must not be more than there is room for.
func append(_ bytes: RawSpan, to pages: inout OutputRawSpan) {
    unsafe pages.withUnsafeMutableBytes { buffer, initialized in
        unsafe bytes.withUnsafeBytes { source in
            unsafe (buffer.baseAddress! + initialized).copyMemory(from: source.baseAddress!, byteCount: source.count)
        }
        initialized += bytes.byteCount
    }
}
