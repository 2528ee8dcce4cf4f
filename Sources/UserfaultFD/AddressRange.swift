internal import SystemPackage

/// A half-open range of addresses, `start ..< end`, that never wraps around.
///
/// The addresses may be another process': a range is a pair of numbers and touches nothing.
public struct AddressRange: Hashable, Sendable {
    /// The first address of the range.
    public let start: UInt

    /// The length of the range, in bytes.
    public let count: Int

    /// A range from trusted numbers.
    ///
    /// Use ``init(checkingStart:count:)`` for numbers that came from outside the program.
    ///
    /// - Parameters:
    ///   - start: The first address.
    ///   - count: The length, in bytes.
    /// - Precondition: `count` is not negative and `start + count` does not wrap.
    @inlinable
    public init(start: UInt, count: Int) {
        precondition(
            count >= 0 && !start.addingReportingOverflow(UInt(bitPattern: count)).overflow,
            "this range wraps around: use init(checkingStart:count:) for numbers that are not trusted")
        self.start = start
        self.count = count
    }

    /// A range from numbers that may be anything.
    ///
    /// - Parameters:
    ///   - start: The first address.
    ///   - count: The length, in bytes.
    /// - Throws: ``UserfaultError`` with `EINVAL` if `count` is negative or the range wraps: what the kernel answers to
    ///   such a range.
    public init(checkingStart start: UInt, count: Int) throws(UserfaultError) {
        guard count >= 0, !start.addingReportingOverflow(UInt(bitPattern: count)).overflow else {
            throw UserfaultError(.range, errno: .invalidArgument)
        }
        self.start = start
        self.count = count
    }

    /// The range from one address up to, but not including, another; empty if they are the wrong way round.
    @inlinable
    public init(start: UInt, end: UInt) {
        self.start = start
        self.count = end > start ? Int(clamping: end - start) : 0
    }

    /// The first address after the range.
    @inlinable public var end: UInt { start &+ UInt(bitPattern: count) }

    /// Whether there is no address in the range.
    ///
    /// The kernel answers `EINVAL` to such ranges.
    @inlinable public var isEmpty: Bool { count == 0 }

    /// Whether both ends lie on page boundaries, as every userfaultfd call requires.
    @inlinable
    public func isAligned(to pageSize: PageSize) -> Bool {
        (start | UInt(bitPattern: count)) & UInt(bitPattern: pageSize.bytes - 1) == 0
    }

    /// Whether an address lies in the range.
    @inlinable
    public func contains(_ address: UInt) -> Bool {
        address >= start && address < end
    }

    /// Whether all of another range lies in this one.
    @inlinable
    public func contains(_ other: AddressRange) -> Bool {
        other.start >= start && other.end <= end
    }

    /// Whether the ranges share an address.
    @inlinable
    public func overlaps(_ other: AddressRange) -> Bool {
        !isEmpty && !other.isEmpty && start < other.end && other.start < end
    }

    /// The addresses that lie in both ranges; empty if there are none.
    @inlinable
    public func intersection(_ other: AddressRange) -> AddressRange {
        AddressRange(start: max(start, other.start), end: min(end, other.end))
    }

    /// A part of the range, given by its offset from the start.
    ///
    /// - Parameters:
    ///   - offset: Where the part begins, in bytes from `start`.
    ///   - count: The length of the part, in bytes.
    /// - Precondition: the part lies in the range.
    @inlinable
    public func part(at offset: Int, count: Int) -> AddressRange {
        precondition(
            offset >= 0 && count >= 0 && offset <= self.count && count <= self.count - offset,
            "the part leaves its range")
        return AddressRange(start: start &+ UInt(bitPattern: offset), count: count)
    }

    /// How far an address lies from the start of the range, in bytes.
    ///
    /// - Precondition: the range contains the address.
    @inlinable
    public func offset(of address: UInt) -> Int {
        precondition(contains(address), "the address lies outside the range")
        return Int(bitPattern: address &- start)
    }

    /// What is left of the range after its first `count` bytes: where to continue after a partial fill.
    ///
    /// - Precondition: `count` is in `0 ... self.count`.
    @inlinable
    public func dropFirst(_ count: Int) -> AddressRange {
        part(at: count, count: self.count - count)
    }

    /// The page of the given size that holds an address.
    ///
    /// Any address is valid: the last page of the address space is cut at the highest address.
    @inlinable
    public static func page(holding address: UInt, size: PageSize) -> AddressRange {
        let start = size.roundDown(address)
        let (end, wraps) = start.addingReportingOverflow(UInt(bitPattern: size.bytes))
        return AddressRange(start: start, end: wraps ? .max : end)
    }
}

extension AddressRange: CustomStringConvertible {
    /// Both ends in hexadecimal, as `0x1000 ..< 0x2000`.
    public var description: String {
        "0x\(String(start, radix: 16)) ..< 0x\(String(end, radix: 16))"
    }
}
