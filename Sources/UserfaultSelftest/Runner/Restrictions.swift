import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultFD

/// What keeps this process from running any case: a limit, or a filter of system calls.
enum Restrictions {
    /// Why no case can run, and what to do; nil if nothing keeps them from it.
    static var reason: String? { shortFiles ?? filteredCall }

    /// Memory files are as large as the memory of a case; swap files are of 64 MiB.
    private static var shortFiles: String? {
        var limit = rlimit()
        let hugePage = ProcFile.number("Hugepagesize", in: "/proc/meminfo") ?? 0
        let needed = max(128 << 10, 32 * hugePage)
        guard getrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0, limit.rlim_cur < needed << 10 else {
            return nil
        }
        return "files may have \(limit.rlim_cur >> 10) KiB, \(needed) are needed: raise the limit (ulimit -f)"
    }

    private static var filteredCall: String? {
        var error: Int32 = 0
        guard let name = css_filtered_call(&error) else { return nil }
        return filtered(String(cString: name), Errno(rawValue: error))
    }

    /// What a report says of a system call that is refused although the kernel refuses it to nobody.
    static func filtered(_ call: String, _ error: Errno) -> String {
        "\(call)(2) is filtered (\(error)): allow it in the seccomp profile or the security module's policy"
    }

    /// The same of a call that only some cases make, and that has failed in one of them; nil if it is not filtered.
    static func filteredCall(_ error: UserfaultError) -> String? {
        guard error.operation == .createMemfd, [.notPermitted, .noFunction].contains(error.errno) else { return nil }
        return filtered("memfd_create", error.errno)
    }
}
