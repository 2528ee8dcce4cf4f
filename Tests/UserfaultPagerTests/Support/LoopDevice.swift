import CUserfaultFD
import Glibc
import UserfaultFD

/// A block device whose content is a file's; the kernel frees it with its last descriptor.
enum LoopDevice {
    private static let setDescriptor: UInt = 0x4C00
    private static let clearDescriptor: UInt = 0x4C01
    private static let getFree: UInt = 0x4C82

    /// Whether this user, and this kernel, can make one.
    static var isPossible: Bool {
        guard let file = try? numberedFile(pages: 1).release() else { return false }
        defer { close(file) }
        guard let device = open(over: file) else { return false }
        close(device)
        return true
    }

    /// A descriptor of a device over a file, or `nil` where none can be made.
    static func open(over file: Int32) -> Int32? {
        let control = Glibc.open("/dev/loop-control", O_RDWR | O_CLOEXEC)
        guard control >= 0 else { return nil }
        defer { close(control) }
        // Somebody else may take the device between the two calls.
        for _ in 0..<16 {
            let number = cuffd_ioctl(control, UInt64(getFree), nil)
            guard number >= 0 else { return nil }
            let device = Glibc.open("/dev/loop\(number)", O_RDWR | O_CLOEXEC)
            guard device >= 0 else { return nil }
            let bound = cuffd_ioctl(device, UInt64(setDescriptor), UnsafeMutableRawPointer(bitPattern: UInt(file)))
            if bound == 0 {
                // With two openers this only says that the last of them frees it.
                let reader = Glibc.open("/dev/loop\(number)", O_RDONLY | O_CLOEXEC)
                _ = cuffd_ioctl(device, UInt64(clearDescriptor), nil)
                close(device)
                return reader >= 0 ? reader : nil
            }
            close(device)
            guard bound == -EBUSY else { return nil }
        }
        return nil
    }
}
