package import UserfaultFD

/// A range that no range ioctl takes: each must answer EINVAL and do nothing.
package struct RangeViolation: Sendable {
    package let name: String
    package let start: UInt
    package let count: UInt

    /// One of each, near pages that would do.
    package static func all(around range: AddressRange) -> [RangeViolation] {
        let (start, count) = (range.start, UInt(range.count))
        let page = UInt(PageSize.base.bytes)
        return [
            RangeViolation(name: "an unaligned start", start: start + 1, count: count),
            RangeViolation(name: "a start half a page in", start: start + page / 2, count: count),
            RangeViolation(name: "no length", start: start, count: 0),
            RangeViolation(name: "an unaligned length", start: start, count: count - 1),
            RangeViolation(name: "a length half a page too long", start: start, count: count + page / 2),
            RangeViolation(name: "a start in the kernel's half", start: BadPointer.kernelHalf, count: count),
            RangeViolation(name: "an end in the kernel's half", start: start, count: 1 << 63),
            RangeViolation(name: "an end past all addresses", start: start, count: 0 &- page),
            RangeViolation(name: "a length that wraps to the range's end", start: start, count: 0 &- start &+ count),
        ]
    }
}

/// Addresses from which no argument can be read.
package enum BadPointer {
    /// An address that no user memory has, on any architecture.
    ///
    /// The bits above 55 alone may be a tag, which arm64 ignores.
    package static let kernelHalf: UInt = 0 &- (1 << 55)

    package static func all() -> [UnsafeMutableRawPointer?] {
        let page = PageSize.base.bytes
        let memory = try? Mapping(anonymous: 2 * page)
        // Leaked: the page that must stay out of reach is needed until the process ends.
        guard let range = memory?.release() else { return [nil] }
        _ = RawMemory.protect(range.part(at: page, count: page), .none)
        let hole = UnsafeMutableRawPointer(bitPattern: range.start + UInt(page))!
        return [nil, hole, hole - 8]
    }
}
