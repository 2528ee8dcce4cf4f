internal import CUserfaultFD
public import SystemPackage

/// Mapped memory, which the value owns: it is unmapped when the value dies.
///
/// The mapping may be shared between threads; whether its bytes may be is for the program to order. Memory that is
/// registered with a ``UserfaultFD`` must not be touched by the thread that resolves its faults.
public struct Mapping: ~Copyable, Sendable {
    /// Where the memory is.
    ///
    /// Empty once it was unmapped.
    public private(set) var range: AddressRange

    /// The size of the pages that the mapping is made of: the huge page's on hugetlbfs, else the base page's.
    public let pageSize: PageSize

    /// Maps anonymous memory.
    ///
    /// The corresponding system call is `mmap(2)` with `MAP_ANONYMOUS`.
    ///
    /// - Parameters:
    ///   - count: The length, in bytes; rounded up to whole pages.
    ///   - sharing: Private, or shared with the children of a fork.
    ///   - protection: What may be done with it.
    ///   - hugePages: Makes it of huge pages of this size, from the pool of hugetlbfs.
    ///   - placement: Where to put it.
    ///   - options: Further options.
    /// - Throws: ``UserfaultError``: `ENOMEM` (also for an empty huge page pool), `EEXIST` for an address that is taken,
    ///   `EINVAL` for a length of 0 or a page size the machine lacks.
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
    ///   - count: The length, in bytes, or `nil` for all that lies behind `offset`.
    ///   - sharing: Whether stores go to the file.
    ///   - protection: What may be done with it.
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
        if let count { length = count } else { length = try memfd.status().count - offset }
        try self.init(
            count: length, pageSize: memfd.pageSize, sharing: sharing, protection: protection, flags: 0,
            descriptor: memfd.descriptor.rawValue, offset: offset, placement: placement, options: options)
    }

    /// Maps a part of any file.
    ///
    /// - Parameters:
    ///   - file: The file. It may be closed before the mapping is gone.
    ///   - pageSize: The size of the file's pages, where it lies on hugetlbfs.
    ///   - offset: Where the part begins, in bytes; a multiple of the page size.
    ///   - count: The length, in bytes.
    ///   - sharing: Whether stores go to the file.
    ///   - protection: What may be done with it.
    ///   - placement: Where to put it.
    ///   - options: Further options.
    /// - Throws: ``UserfaultError``: `EACCES` for a mapping that the file's mode forbids, `ENOMEM`, `EEXIST`, `EINVAL`.
    public init(
        file: FileDescriptor,
        pageSize: PageSize = .base,
        offset: Int = 0,
        count: Int,
        sharing: Sharing = .shared,
        protection: MemoryProtection = .readWrite,
        placement: Placement = .anywhere,
        options: Options = []
    ) throws(UserfaultError) {
        try self.init(
            count: count, pageSize: pageSize, sharing: sharing, protection: protection, flags: 0,
            descriptor: file.rawValue, offset: offset, placement: placement, options: options)
    }

    private init(
        count: Int, pageSize: PageSize, sharing: Sharing, protection: MemoryProtection, flags: CInt,
        descriptor: CInt, offset: Int, placement: Placement, options: Options
    ) throws(UserfaultError) {
        guard count > 0, count <= Int.max - pageSize.bytes else {
            throw UserfaultError(.map, errno: .invalidArgument)
        }
        var flags = flags | (sharing == .shared ? CUFFD_MAP_SHARED : CUFFD_MAP_PRIVATE)
        if options.contains(.noReserve) { flags |= CUFFD_MAP_NORESERVE }
        if options.contains(.populate) { flags |= CUFFD_MAP_POPULATE }
        if options.contains(.locked) { flags |= CUFFD_MAP_LOCKED }
        var address: UInt64 = 0
        switch placement {
        case .anywhere: break
        case .at(let wanted):
            address = UInt64(wanted)
            flags |= CUFFD_MAP_FIXED_NOREPLACE
        case .replacing(let wanted):
            address = UInt64(wanted)
            flags |= CUFFD_MAP_FIXED
        }
        let length = pageSize.roundUp(count)
        let answer = unsafe cuffd_mmap(&address, length, protection.rawValue, flags, descriptor, Int64(offset))
        guard answer >= 0 else { throw UserfaultError(.map, answer: answer) }
        self.range = AddressRange(start: UInt(address), count: length)
        self.pageSize = pageSize
    }

    /// Takes over memory that is mapped already, and that nobody else will unmap.
    ///
    /// - Parameters:
    ///   - range: The memory: whole pages.
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

    /// Unmaps the memory, and says what the kernel answered.
    ///
    /// The corresponding system call is `munmap(2)`.
    ///
    /// - Throws: ``UserfaultError``: `ENOMEM` where the process has too many mappings; the memory stays mapped.
    public consuming func unmap() throws(UserfaultError) {
        let unmapped = range
        range = AddressRange(start: 0, count: 0)
        let answer = cuffd_munmap(UInt64(unmapped.start), unmapped.count)
        guard answer >= 0 else { throw UserfaultError(.unmap, answer: answer) }
    }

    /// Unmaps a part of the memory, which nobody may use any more.
    ///
    /// The value's ``range`` stays as it is.
    ///
    /// - Parameter part: Whole pages of the mapping.
    /// - Throws: ``UserfaultError``: `EINVAL` for a part that leaves the mapping or is not aligned.
    @unsafe
    public func unmap(_ part: AddressRange) throws(UserfaultError) {
        guard range.contains(part) else { throw UserfaultError(.unmap, errno: .invalidArgument) }
        let answer = cuffd_munmap(UInt64(part.start), part.count)
        guard answer >= 0 else { throw UserfaultError(.unmap, answer: answer) }
    }

    /// Moves the memory, or changes its length.
    ///
    /// The corresponding system call is `mremap(2)`.
    ///
    /// - Parameters:
    ///   - count: The new length, in bytes; rounded up to whole pages. `nil` keeps the length.
    ///   - placement: Where to move it. ``Placement/at(_:)`` replaces what is there, as `MREMAP_FIXED` does.
    /// - Throws: ``UserfaultError``: `EFAULT`, `EINVAL`, `ENOMEM`; the memory stays where it was.
    public mutating func remap(count: Int? = nil, to placement: Placement = .anywhere) throws(UserfaultError) {
        var address: UInt64 = 0
        var flags = CUFFD_MREMAP_MAYMOVE
        switch placement {
        case .anywhere: break
        case .at(let wanted), .replacing(let wanted):
            address = UInt64(wanted)
            flags |= CUFFD_MREMAP_FIXED
        }
        let length = pageSize.roundUp(count ?? range.count)
        let answer = unsafe cuffd_mremap(UInt64(range.start), range.count, length, flags, &address)
        guard answer >= 0 else { throw UserfaultError(.remap, answer: answer) }
        range = AddressRange(start: UInt(address), count: length)
    }
}
