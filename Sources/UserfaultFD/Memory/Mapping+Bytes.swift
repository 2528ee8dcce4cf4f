extension Mapping {
    /// The address of the first byte, for code that works with pointers.
    ///
    /// - Warning: Invalid once the mapping is gone or moved.
    @unsafe public var unsafeBaseAddress: UnsafeMutableRawPointer {
        // Address 0 is refused when a mapping is made or moved, so this is never null.
        unsafe UnsafeMutableRawPointer(bitPattern: range.start)!
    }

    /// Lends the bytes for reading.
    ///
    /// A missing page is brought in, or, in registered memory, waited for. The memory must be readable.
    public func withBytes<Result: ~Copyable, Failure: Error>(
        _ body: (RawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let bytes = unsafe UnsafeRawBufferPointer(start: unsafeBaseAddress, count: count)
        return try unsafe body(bytes.bytes)
    }

    /// Lends the bytes for writing.
    ///
    /// A missing page is brought in, or, in registered memory, waited for. The memory must be writable.
    public mutating func withMutableBytes<Result: ~Copyable, Failure: Error>(
        _ body: (inout MutableRawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let bytes = unsafe UnsafeMutableRawBufferPointer(start: unsafeBaseAddress, count: count)
        var span = unsafe bytes.mutableBytes
        return try body(&span)
    }
}
