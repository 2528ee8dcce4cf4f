import CUserfaultFD
package import SystemPackage
package import UserfaultFD

/// Calls on memory and files with the kernel's own answers: 0 or a number of bytes, or minus the errno.
///
/// For memory that no value owns, and for cases whose subject is the answer itself.
package enum RawMemory {
    package static func advise(_ range: AddressRange, _ advice: Advice) -> Int32 {
        cuffd_madvise(UInt64(range.start), range.count, advice.rawValue)
    }

    package static func protect(_ range: AddressRange, _ protection: MemoryProtection) -> Int32 {
        cuffd_mprotect(UInt64(range.start), range.count, protection.rawValue)
    }

    package static func unmap(_ range: AddressRange) -> Int32 { cuffd_munmap(UInt64(range.start), range.count) }

    package static func lock(_ range: AddressRange) -> Int32 { cuffd_mlock(UInt64(range.start), range.count) }

    package static func unlock(_ range: AddressRange) -> Int32 { cuffd_munlock(UInt64(range.start), range.count) }

    /// `mmap(2)` of anonymous memory that can be read and written, with any flags.
    package static func mapAnonymous(at address: UInt = 0, count: Int, flags: Int32) throws(Errno) -> AddressRange {
        var mapped = UInt64(address)
        try checked(
            cuffd_mmap(&mapped, count, CUFFD_PROT_READ | CUFFD_PROT_WRITE, flags | CUFFD_MAP_ANONYMOUS, -1, 0))
        return AddressRange(start: UInt(mapped), count: count)
    }

    /// `pread(2)` into memory that may not be there.
    package static func read(_ file: Int32, into address: UnsafeMutableRawPointer?, _ count: Int, at offset: Int) -> Int
    {
        cuffd_pread(file, address, count, Int64(offset))
    }

    /// `pwrite(2)` from memory that may not be there.
    package static func write(_ file: Int32, from address: UnsafeRawPointer?, _ count: Int, at offset: Int) -> Int {
        cuffd_pwrite(file, address, count, Int64(offset))
    }

    /// A file of KVM's own kind that can be mapped, or minus the errno.
    package static func guestFile(count: Int) -> Int32 { cuffd_guest_memfd(UInt64(count)) }
}
