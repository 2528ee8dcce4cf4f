import CUserfaultFD
import Glibc
import SystemPackage

/// Accesses to memory that the kernel makes on behalf of this process, through `process_vm_readv(2)` and its twin.
package enum ProcessMemory {
    /// Has the kernel read a byte.
    ///
    /// Answers 1, or minus the errno.
    package static func read(_ address: UInt, _ byte: inout UInt8) throws(CaseSkip) -> Int {
        try known(cuffd_process_vm_read(getpid(), UInt64(address), &byte, 1))
    }

    /// Has the kernel read as many bytes as there is room for.
    ///
    /// Answers their number, or minus the errno.
    package static func read(_ address: UInt, into bytes: inout [UInt8]) throws(CaseSkip) -> Int {
        try known(cuffd_process_vm_read(getpid(), UInt64(address), &bytes, bytes.count))
    }

    /// Has the kernel write a byte.
    ///
    /// Answers 1, or minus the errno.
    package static func write(_ address: UInt, _ byte: UInt8) throws(CaseSkip) -> Int {
        try known(withUnsafeBytes(of: byte) { cuffd_process_vm_write(getpid(), UInt64(address), $0.baseAddress!, 1) })
    }

    /// Skips the case unless the calls can be made, for a case that would wait for the fault of one that fails.
    package static func expectPossible() throws(CaseSkip) {
        var byte: UInt8 = 0
        let mine = UnsafeMutablePointer<UInt8>.allocate(capacity: 1)
        mine.initialize(to: 0)
        defer { mine.deallocate() }
        _ = try read(UInt(bitPattern: mine), &byte)
        _ = try write(UInt(bitPattern: mine), byte)
    }

    /// The kernel refuses nobody access to their own memory; a filter does, or a kernel that has not got the calls.
    private static func known(_ answer: Int) throws(CaseSkip) -> Int {
        guard answer != -Int(EPERM), answer != -Int(ENOSYS) else {
            throw CaseSkip(
                Restrictions.filtered("process_vm_readv(2) or process_vm_writev", Errno(rawValue: Int32(-answer))))
        }
        return answer
    }
}
