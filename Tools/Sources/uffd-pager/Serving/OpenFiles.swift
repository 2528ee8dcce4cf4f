import Glibc

/// How many descriptors this process may have.
enum OpenFiles {
    static var limit: UInt {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        return limit.rlim_cur
    }

    /// Whether so many further ones are free now.
    static func hasRoom(for count: Int) -> Bool {
        var held: [Int32] = []
        defer { for number in held { close(number) } }
        while held.count < count {
            let number = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)
            guard number >= 0 else { return false }
            held.append(number)
        }
        return true
    }
}
