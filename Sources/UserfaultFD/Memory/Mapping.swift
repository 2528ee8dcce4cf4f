internal import CUserfaultFD
public import SystemPackage

/// Mapped memory, which the value owns: it is unmapped when the value is destroyed.
///
/// The mapping may be shared between threads; the program must order accesses to its bytes. Memory that is registered with
/// a ``UserfaultFD`` must not be touched by the thread that resolves its faults.
public struct Mapping: ~Copyable, Sendable {
    /// Where the memory is.
    ///
    /// Empty once it is unmapped.
    public internal(set) var range: AddressRange

    /// The size of the pages that the mapping is made of: the huge page's on hugetlbfs, else the base page's.
    public let pageSize: PageSize

    /// Maps anonymous memory.
    ///
    /// The corresponding system call is `mmap(2)` with `MAP_ANONYMOUS`.
    ///
    /// - Parameters:
    ///   - count: The length, in bytes; rounded up to whole pages.
    ///   - sharing: Private, or shared with the children of a fork.
    ///   - protection: Which accesses are allowed.
    ///   - hugePages: Makes it of huge pages of this size, from the pool of hugetlbfs.
    ///   - placement: Where to put it.
    ///   - options: Further options.
    /// - Throws: ``UserfaultError``: `ENOMEM` (also for an empty huge page pool), `EEXIST` for an address that is taken,
    ///   `EINVAL` for a length of 0 or less, the address 0, or a page size that the machine does not have.
    public init(
        anonymous count: Int,
        sharing: Sharing = .private,
        protection: MemoryProtection = .readWrite,
        hugePages: PageSize? = nil,
        placement: Placement = .anywhere,
        options: Options = []
    ) throws(UserfaultError) {
        var flags = CUFFD_MAP_ANONYMOUS
        if let hugePages {
            flags |= CUFFD_MAP_HUGETLB | CInt(hugePages.log2) << CUFFD_MAP_HUGE_SHIFT
        }
        try self.init(
            count: count, pageSize: hugePages ?? .base, sharing: sharing, protection: protection, flags: flags,
            descriptor: -1, offset: 0, placement: placement, options: options)
    }

    /// Maps a part of a memory file.
    ///
    /// The corresponding system call is `mmap(2)`.
    ///
    /// - Parameters:
    ///   - memfd: The file. It may be closed before the mapping is gone.
    ///   - offset: Where the part begins, in bytes; a multiple of the page size.
    ///   - count: The length, in bytes, or `nil` for all that lies after `offset`.
    ///   - sharing: Whether stores go to the file.
    ///   - protection: Which accesses are allowed.
    ///   - placement: Where to put it.
    ///   - options: Further options.
    /// - Throws: ``UserfaultError``: `EPERM` for a writable shared mapping of a sealed file, `ENOMEM`, `EEXIST`,
    ///   `EINVAL`.
    public init(
        _ memfd: borrowing Memfd,
        offset: Int = 0,
        count: Int? = nil,
        sharing: Sharing = .shared,
        protection: MemoryProtection = .readWrite,
        placement: Placement = .anywhere,
        options: Options = []
    ) throws(UserfaultError) {
        let length: Int
        if let count {
            length = count
        } else {
            let (rest, overflows) = try memfd.status().count.subtractingReportingOverflow(offset)
            guard !overflows else { throw UserfaultError(.map, errno: .invalidArgument) }
            length = rest
        }
        try self.init(
            count: length, pageSize: memfd.pageSize, sharing: sharing, protection: protection, flags: 0,
            descriptor: memfd.descriptor.rawValue, offset: offset, placement: placement, options: options)
    }

    /// Maps a part of any file.
    ///
    /// - Parameters:
    ///   - file: The file. It may be closed before the mapping is gone.
    ///   - pageSize: The size of the file's pages, or `nil` to ask the file.
    ///   - offset: Where the part begins, in bytes; a multiple of the page size.
    ///   - count: The length, in bytes.
    ///   - sharing: Whether stores go to the file.
    ///   - protection: Which accesses are allowed.
    ///   - placement: Where to put it.
    ///   - options: Further options.
    /// - Throws: ``UserfaultError``: `EACCES` for a mapping that the file's mode forbids, `ENOMEM`, `EEXIST`, `EINVAL`.
    public init(
        file: FileDescriptor,
        pageSize: PageSize? = nil,
        offset: Int = 0,
        count: Int,
        sharing: Sharing = .shared,
        protection: MemoryProtection = .readWrite,
        placement: Placement = .anywhere,
        options: Options = []
    ) throws(UserfaultError) {
        let ownSize: PageSize
        if let pageSize { ownSize = pageSize } else { ownSize = try Self.pageSize(of: file) }
        try self.init(
            count: count, pageSize: ownSize, sharing: sharing, protection: protection,
            flags: 0, descriptor: file.rawValue, offset: offset, placement: placement, options: options)
    }

    /// The size of a file's pages: a mapping of hugetlbfs is as long as those, whatever length was asked for.
    private static func pageSize(of file: FileDescriptor) throws(UserfaultError) -> PageSize {
        let status = try FileStatus(of: file.rawValue)
        return PageSize(bytes: status.pageBytes) ?? .base
    }

    private init(
        count: Int, pageSize: PageSize, sharing: Sharing, protection: MemoryProtection, flags: CInt,
        descriptor: CInt, offset: Int, placement: Placement, options: Options
    ) throws(UserfaultError) {
        guard count > 0, offset >= 0, pageSize >= .base, let length = pageSize.roundedUp(count), placement.isPossible,
            options.isDisjoint(with: .decidedElsewhere)
        else {
            throw UserfaultError(.map, errno: .invalidArgument)
        }
        let flags =
            flags | options.rawValue | placement.flags | (sharing == .shared ? CUFFD_MAP_SHARED : CUFFD_MAP_PRIVATE)
        var address = UInt64(placement.address ?? 0)
        _ = try answer(to: .map) {
            unsafe cuffd_mmap(&address, length, protection.rawValue, flags, descriptor, Int64(offset))
        }
        self.range = AddressRange(start: UInt(address), count: length)
        self.pageSize = pageSize
    }

    /// Takes over memory that is mapped already, and that nobody else will unmap.
    ///
    /// - Parameters:
    ///   - range: The memory: whole pages, not at address 0.
    ///   - pageSize: The size of its pages.
    @unsafe
    public init(adopting range: AddressRange, pageSize: PageSize = .base) {
        self.range = range
        self.pageSize = pageSize
    }

    deinit {
        if !range.isEmpty { _ = cuffd_munmap(UInt64(range.start), range.count) }
    }

    /// The number of bytes that are mapped.
    public var count: Int { range.count }

    /// The number of pages that are mapped.
    public var pageCount: Int { range.count / pageSize.bytes }

    /// One page of the mapping.
    ///
    /// - Precondition: `index` is in `0 ..< pageCount`.
    public func page(_ index: Int) -> AddressRange {
        range.part(at: index * pageSize.bytes, count: pageSize.bytes)
    }

    /// Gives the memory up without unmapping it: the caller owns it from now on.
    public consuming func release() -> AddressRange {
        let released = range
        range = AddressRange(start: 0, count: 0)
        return released
    }

    /// Unmaps the memory, and reports what the kernel answered.
    ///
    /// The corresponding system call is `munmap(2)`.
    ///
    /// - Throws: ``UserfaultError``: `ENOMEM` if the process has too many mappings; the memory then stays mapped.
    public consuming func unmap() throws(UserfaultError) {
        let unmapped = range
        range = AddressRange(start: 0, count: 0)
        _ = try answer(to: .unmap) { cuffd_munmap(UInt64(unmapped.start), unmapped.count) }
    }

    /// Unmaps a part of the memory, and gives up the rest: the caller owns it from now on.
    ///
    /// The hole may be somebody else's at once, so that no value can own the memory around it as one.
    ///
    /// - Parameter part: Whole pages of the mapping.
    /// - Returns: What is left before the part and after it; either may be empty. Adopt or unmap each.
    /// - Throws: ``UserfaultError``: `EINVAL` for a part that leaves the mapping or is not aligned, `ENOMEM` if the process
    ///   has too many mappings. The memory is then unmapped as a whole.
    public consuming func unmap(_ part: AddressRange) throws(UserfaultError) -> (
        before: AddressRange, after: AddressRange
    ) {
        guard range.contains(part) else { throw UserfaultError(.unmap, errno: .invalidArgument) }
        unsafe try AddressSpace.unmap(part)
        let whole = release()
        return (AddressRange(start: whole.start, end: part.start), AddressRange(start: part.end, end: whole.end))
    }
}
