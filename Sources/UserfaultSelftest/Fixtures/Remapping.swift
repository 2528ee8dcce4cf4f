import CUserfaultFD
package import SystemPackage
package import UserfaultFD

/// `mremap(2)` of memory that no value owns, in all its forms.
package enum Remapping {
    /// Moves a range to a fixed place, where it may get another length.
    ///
    /// Answers the new address.
    package static func move(_ range: AddressRange, to target: AddressRange) throws(Errno) -> UInt {
        try call(range, count: target.count, flags: CUFFD_MREMAP_MAYMOVE | CUFFD_MREMAP_FIXED, target: target.start)
    }

    /// Changes the length without moving.
    ///
    /// Answers the address.
    package static func resize(_ range: AddressRange, to count: Int) throws(Errno) -> UInt {
        try call(range, count: count, flags: 0, target: 0)
    }

    /// Moves the pages to a fixed place and leaves the old range mapped and empty.
    ///
    /// Answers the new address.
    package static func moveKeeping(_ range: AddressRange, to target: UInt) throws(Errno) -> UInt {
        let flags = CUFFD_MREMAP_MAYMOVE | CUFFD_MREMAP_FIXED | CUFFD_MREMAP_DONTUNMAP
        return try call(range, count: range.count, flags: flags, target: target)
    }

    package static func call(
        _ range: AddressRange, count: Int, flags: Int32, target: UInt
    ) throws(Errno) -> UInt {
        var address = UInt64(target)
        let answer = cuffd_mremap(UInt64(range.start), range.count, count, flags, &address)
        guard answer == 0 else { throw Errno(rawValue: -answer) }
        return UInt(address)
    }
}
