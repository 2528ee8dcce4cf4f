internal import CUserfaultFD
internal import SystemPackage

/// Calls on addresses of this process that no ``Mapping`` of the caller owns.
package enum AddressSpace {
    /// `madvise(2)`.
    package static func advise(_ advice: Advice, _ range: AddressRange) throws(UserfaultError) {
        _ = try answer(to: .advise) { cuffd_madvise(UInt64(range.start), range.count, advice.rawValue) }
    }

    /// `mlock(2)`.
    package static func lock(_ range: AddressRange) throws(UserfaultError) {
        _ = try answer(to: .lockMemory) { cuffd_mlock(UInt64(range.start), range.count) }
    }

    /// `munlock(2)`.
    package static func unlock(_ range: AddressRange) throws(UserfaultError) {
        _ = try answer(to: .lockMemory) { cuffd_munlock(UInt64(range.start), range.count) }
    }

    /// `munmap(2)`.
    @unsafe
    package static func unmap(_ range: AddressRange) throws(UserfaultError) {
        _ = try answer(to: .unmap) { cuffd_munmap(UInt64(range.start), range.count) }
    }

    /// `mremap(2)` to a fixed address, whatever is mapped there.
    @unsafe
    package static func move(_ range: AddressRange, to target: UInt) throws(UserfaultError) -> AddressRange {
        var address = UInt64(target)
        let flags = CUFFD_MREMAP_MAYMOVE | CUFFD_MREMAP_FIXED
        _ = try answer(to: .remap) {
            unsafe cuffd_mremap(UInt64(range.start), range.count, range.count, flags, &address)
        }
        return AddressRange(start: UInt(address), count: range.count)
    }

    /// Whether pages are in memory, one `Bool` a page of the base size: `mincore(2)`.
    package static func residency(of range: AddressRange) throws(UserfaultError) -> [Bool] {
        var bytes = [UInt8](repeating: 0, count: PageSize.base.pages(in: range.count))
        _ = try answer(to: .residency) { unsafe cuffd_mincore(UInt64(range.start), range.count, &bytes) }
        return bytes.map { $0 & 1 == 1 }
    }

    /// Whether one page of the base size is in memory: `mincore(2)`.
    ///
    /// Takes no memory itself.
    package static func isResident(_ page: AddressRange) throws(UserfaultError) -> Bool {
        var byte: UInt8 = 0
        _ = try answer(to: .residency) { unsafe cuffd_mincore(UInt64(page.start), page.count, &byte) }
        return byte & 1 == 1
    }

    /// Has the kernel store bytes, which fails where a store of this thread's own would end in `SIGBUS`:
    /// `process_vm_writev(2)` on this process.
    @unsafe
    package static func store(_ bytes: UnsafeRawBufferPointer, at address: UInt) throws(UserfaultError) {
        guard let start = bytes.baseAddress else { return }
        try transferAll(bytes.count, .storeMemory) { done in
            unsafe cuffd_process_vm_write(
                cuffd_getpid(), UInt64(address) + UInt64(done), start + done, bytes.count - done)
        }
    }
}
