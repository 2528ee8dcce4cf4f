import Glibc
import SystemPackage
import UserfaultFD

/// Pages that cases have the kernel take for broken hardware: nobody can use them until they are healed.
enum BrokenPages {
    /// The variable that tells the process of a result in which file it lists the frames that it breaks.
    static let variable = "UFFD_SELFTEST_BROKEN_PAGES"

    /// Where the kernel is told that a frame is sound after all.
    static let healer = "/sys/kernel/debug/hwpoison/unpoison-pfn"

    /// The list that a guardian makes and reads.
    ///
    /// It is where only root makes files: a name that can be told in advance may be another user's link elsewhere.
    static func list(ofProcess pid: Int32) -> String { "/run/uffd-selftest-\(pid).broken" }

    /// Makes an empty list, or goes on with the one that is there; answers why not.
    static func make(_ list: String) -> Errno? {
        let file = open(list, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard file >= 0 else { return Errno(rawValue: errno) }
        close(file)
        return nil
    }

    /// Lists the frames of memory that is about to be broken, all of which is present.
    static func note(_ range: AddressRange) throws {
        guard let list = getenv(variable).map({ String(cString: $0) }) else { return }
        let frames = try PagemapEntry.entries(of: range).map { "\($0.frame)\n" }.joined()
        let file = try FileDescriptor.open(
            FilePath(list), .writeOnly, options: [.append, .noFollow, .closeOnExec])
        try file.closeAfter { _ = try file.writeAll(frames.utf8) }
    }

    /// Heals the frames of a list, and removes the list; answers what could not be healed.
    ///
    /// The processes that had the frames have ended.
    static func heal(_ list: String) -> String? {
        let frames = (ProcFile.text(list) ?? "").split(separator: "\n").compactMap { UInt64($0) }
        let lost = frames.count { !heal($0) }
        guard lost == 0 else { return "\(lost) pages of memory are unused until the next boot; \(list) lists them" }
        unlink(list)
        return nil
    }

    /// Heals a frame, which may still be on its way out of the kernel's lists; answers whether it is sound.
    private static func heal(_ frame: UInt64) -> Bool {
        let deadline = ContinuousClock.now + .seconds(2)
        while isBroken(frame) {
            _ = ProcFile.write("\(frame)", to: healer)
            guard isBroken(frame) else { break }
            guard ContinuousClock.now < deadline else { return false }
            poll(nil, 0, 5)
        }
        return true
    }

    private static func isBroken(_ frame: UInt64) -> Bool {
        (try? PageFrame.flags(of: frame))?.contains(.hardwarePoison) ?? true
    }
}
