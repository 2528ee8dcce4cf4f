internal import CUserfaultFD

/// The size of a page: a power of two, in bytes.
public struct PageSize: Hashable, Comparable, Sendable {
    /// Bytes in a page of this size.
    public let bytes: Int

    /// A page size of a number of bytes, or `nil` if that is not a power of two.
    public init?(bytes: Int) {
        guard bytes > 0, bytes & (bytes - 1) == 0 else { return nil }
        self.bytes = bytes
    }

    private init(powerOfTwo bytes: Int) {
        self.bytes = bytes
    }

    /// The machine's base page size: 4 KiB on x86-64.
    public static let base = PageSize(powerOfTwo: cuffd_page_size())

    /// 2 MiB: a huge page of x86-64, and of arm64 with 4 KiB base pages.
    public static let twoMiB = PageSize(powerOfTwo: 2 << 20)

    /// 64 KiB: the smallest huge page of arm64 and riscv64 with 4 KiB base pages.
    public static let sixtyFourKiB = PageSize(powerOfTwo: 64 << 10)

    /// 1 GiB: the large huge page of x86-64 and arm64.
    public static let oneGiB = PageSize(powerOfTwo: 1 << 30)

    /// The size of the machine's default huge page, or `nil` if the kernel has none.
    public static var defaultHuge: PageSize? {
        guard let text = ProcFile.text("/proc/meminfo"),
            let value = ProcFile.value(of: "Hugepagesize:", in: text),
            let kibibytes = Int(value.prefix { $0.isNumber })
        else { return nil }
        return PageSize(bytes: kibibytes << 10)
    }

    /// Whether memory of this machine may have such pages: they have the base size, or are huge pages of the kernel.
    package var isOfThisMachine: Bool {
        self == .base || self == .defaultHuge
            || ProcFile.text("/sys/kernel/mm/hugepages/hugepages-\(bytes >> 10)kB/nr_hugepages") != nil
    }

    /// The binary logarithm of the size: the form in which `MAP_HUGETLB` and `MFD_HUGETLB` take it.
    public var log2: Int { bytes.trailingZeroBitCount }

    /// The largest multiple of the page size that is not above an address.
    @inlinable
    public func roundDown(_ address: UInt) -> UInt {
        address & ~UInt(bitPattern: bytes - 1)
    }

    /// The smallest multiple of the page size that is not below a number of bytes.
    ///
    /// - Precondition: the count is not negative, and the result fits in `Int`.
    @inlinable
    public func roundUp(_ count: Int) -> Int {
        // The sum of the count and a page may not fit where the result does.
        let rest = count & (bytes - 1)
        return rest == 0 ? count : count + (bytes - rest)
    }

    /// The smallest multiple of the page size that is not below a number of bytes, or `nil` if that does not fit.
    func roundedUp(_ count: Int) -> Int? {
        count & (bytes - 1) == 0 || count <= Int.max - bytes ? roundUp(count) : nil
    }

    /// The number of pages that hold a number of bytes.
    ///
    /// - Precondition: the count is not negative, and the pages' length fits in `Int`.
    @inlinable
    public func pages(in count: Int) -> Int {
        roundUp(count) / bytes
    }

    /// Whether the first size is the smaller one.
    public static func < (lhs: PageSize, rhs: PageSize) -> Bool {
        lhs.bytes < rhs.bytes
    }
}

extension PageSize: CustomStringConvertible {
    /// The size in the largest unit that it is a whole number of.
    public var description: String {
        switch bytes {
        case (1 << 30)...: "\(bytes >> 30) GiB"
        case (1 << 20)...: "\(bytes >> 20) MiB"
        case (1 << 10)...: "\(bytes >> 10) KiB"
        default: "\(bytes) bytes"
        }
    }
}
