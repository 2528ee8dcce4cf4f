import CUserfaultFD

/// Accesses to memory that the kernel makes on behalf of this process, through `process_vm_readv(2)` and its twin.
package enum ProcessMemory {
    /// Has the kernel read a byte.
    ///
    /// Answers 1, or minus the errno.
    package static func read(_ address: UInt, _ byte: inout UInt8) -> Int {
        cuffd_process_vm_read(cuffd_getpid(), UInt64(address), &byte, 1)
    }

    /// Has the kernel write a byte.
    ///
    /// Answers 1, or minus the errno.
    package static func write(_ address: UInt, _ byte: UInt8) -> Int {
        withUnsafeBytes(of: byte) { cuffd_process_vm_write(cuffd_getpid(), UInt64(address), $0.baseAddress!, 1) }
    }
}
