import CUserfaultFD
package import SystemPackage

/// A way to a new userfaultfd, with any flags.
package enum RawOpening: String, Sendable {
    case systemCall, device

    /// The flags of which each way takes any set.
    package static let flags: [Int32] = [CUFFD_O_CLOEXEC, CUFFD_O_NONBLOCK, Int32(CUFFD_USER_MODE_ONLY)]

    /// A descriptor, or the negated errno.
    package func open(_ flags: Int32) -> Int32 {
        switch self {
        case .systemCall: return cuffd_userfaultfd(flags)
        case .device:
            let device = cuffd_device_open()
            guard device >= 0 else { return device }
            defer { _ = cuffd_close(device) }
            return cuffd_device_new(device, flags)
        }
    }

    /// Fails unless these flags are answered with this errno, or `nil` with a descriptor, which is closed.
    package func expect(
        _ flags: Int32, _ right: Errno?, _ why: String, file: String = #fileID, line: Int = #line
    ) throws {
        let answer = open(flags)
        if answer >= 0 { _ = cuffd_close(answer) }
        try expectErrno(
            answer < 0 ? -answer : 0, right, "opening by \(rawValue) with flags 0o\(String(flags, radix: 8)), \(why)",
            file: file, line: line)
    }
}
