package import CSelftestSupport
import Glibc
import UserfaultFD

/// A way in which the kernel touches memory on behalf of a system call.
package enum KernelAccess: String, CaseIterable, Sendable {
    case read = "read(2)"
    case uring = "io_uring"
    case processRead = "process_vm_readv(2)"
    case processWrite = "process_vm_writev(2)"
    case write = "write(2)"
    case vmsplice = "vmsplice(2)"
    case memoryRead = "a read of /proc/PID/mem"
    case memoryWrite = "a write of /proc/PID/mem"

    /// What came of an access.
    package struct Outcome: Equatable, Sendable {
        /// Bytes, or the negated errno.
        package let answer: Int
        /// The byte that was loaded, or stored.
        package let byte: UInt8
    }

    /// Whether it stores into the memory.
    package var isStore: Bool {
        switch self {
        case .read, .uring, .processWrite, .memoryWrite: true
        case .processRead, .write, .vmsplice, .memoryRead: false
        }
    }

    /// Whether it goes through /proc/PID/mem, which ptrace's PEEK and POKE are like.
    package var isOfMemoryFile: Bool { self == .memoryRead || self == .memoryWrite }

    package var code: css_access {
        switch self {
        case .read: css_access_read
        case .uring: css_access_uring
        case .processRead: css_access_vm_read
        case .processWrite: css_access_vm_write
        case .write: css_access_write
        case .vmsplice: css_access_vmsplice
        case .memoryRead: css_access_mem_read
        case .memoryWrite: css_access_mem_write
        }
    }

    /// Makes the access, on this thread.
    ///
    /// Stores write this byte.
    ///
    /// - Parameter process: Whose memory, if the access is remote; 0 is this one's.
    package func perform(_ address: UInt, count: Int, byte: UInt8 = 0xEE, process: Int32 = 0) -> Outcome {
        var byte = byte
        let answer = css_kernel_access(code, process, address, count, &byte)
        return Outcome(answer: answer, byte: byte)
    }

    /// Whether this machine lets the access happen at all, tried on memory of no interest.
    package var isPossible: Bool {
        guard let memory = try? Mapping(anonymous: PageSize.base.bytes) else { return false }
        let range = memory.release()
        return perform(range.start, count: 8).answer == 8
    }
}
