internal import CUserfaultFD
internal import SystemPackage

extension Mapping {
    /// Changes the length of the memory, or moves it.
    ///
    /// The corresponding system call is `mremap(2)`.
    ///
    /// - Parameters:
    ///   - count: The new length, in bytes; rounded up to whole pages. `nil` keeps the length.
    ///   - placement: Where to move it. An address given by ``Placement/at(_:)`` must be free, as it must for the
    ///     initializers.
    /// - Throws: ``UserfaultError``: `EEXIST` for an address that is taken; `EFAULT`; `EINVAL` for a length of 0 or less,
    ///   or an address that is not aligned; `ENOMEM`. The memory stays where it was.
    public mutating func remap(count: Int? = nil, to placement: Placement = .anywhere) throws(UserfaultError) {
        let length = try newLength(count)
        range = try reserving(placement, length) { (address, flags) throws(UserfaultError) in
            try move(from: range, to: address, length: length, flags: flags)
        }
    }

    /// Moves the pages of the memory elsewhere and keeps its own range mapped, but empty.
    ///
    /// If the range is registered it stays so, and a touch of it is a missing fault again. Before Linux 5.13 this
    /// works for private anonymous memory only. The corresponding system call is `mremap(2)` with `MREMAP_DONTUNMAP`. Available since Linux 5.7.
    ///
    /// - Parameter placement: Where to move the pages.
    /// - Returns: The pages, at their new addresses.
    /// - Throws: ``UserfaultError``, as ``remap(count:to:)``.
    public func movePages(to placement: Placement = .anywhere) throws(UserfaultError) -> Mapping {
        let moved = try reserving(placement, range.count) { (address, flags) throws(UserfaultError) in
            try move(from: range, to: address, length: range.count, flags: flags | CUFFD_MREMAP_DONTUNMAP)
        }
        return unsafe Mapping(adopting: moved, pageSize: pageSize)
    }

    private func newLength(_ count: Int?) throws(UserfaultError) -> Int {
        guard let count else { return range.count }
        guard count > 0, let length = pageSize.roundedUp(count) else {
            throw UserfaultError(.remap, errno: .invalidArgument)
        }
        return length
    }

    private func move(
        from source: AddressRange, to address: UInt, length: Int, flags: CInt
    ) throws(UserfaultError) -> AddressRange {
        var moved = UInt64(address)
        _ = try answer(to: .remap) {
            unsafe cuffd_mremap(
                UInt64(source.start), source.count, length, flags | CUFFD_MREMAP_MAYMOVE, &moved)
        }
        return AddressRange(start: UInt(moved), count: length)
    }

    /// Calls with a target that nothing of anybody's is mapped at, if it must be free.
    ///
    /// `mremap(2)` knows no flag for that: it replaces whatever it finds. So the target is first mapped by this call,
    /// which fails if it is taken, and what is replaced is that.
    private func reserving(
        _ placement: Placement, _ length: Int, _ body: (UInt, CInt) throws(UserfaultError) -> AddressRange
    ) throws(UserfaultError) -> AddressRange {
        guard let address = placement.address else { return try body(0, 0) }
        guard placement.mustBeFree else { return try body(address, CUFFD_MREMAP_FIXED) }
        let reservation: Mapping
        do throws(UserfaultError) {
            reservation = try Mapping(anonymous: length, protection: .none, placement: placement, options: .noReserve)
        } catch {
            throw UserfaultError(.remap, errno: error.errno)
        }
        // Given up in either case: the kernel unmaps the target before it moves, and may fail after that. Somebody else may
        // have mapped there since. What stays reserved if it failed earlier is address space, and no memory.
        _ = reservation.release()
        return try body(address, CUFFD_MREMAP_FIXED)
    }
}
