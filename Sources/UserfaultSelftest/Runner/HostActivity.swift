import Glibc

/// What other programs do on the host while a result runs, as far as it can spoil the result.
struct HostActivity {
    private let kills = vmstat("oom_kill")
    private let ownGroup = MemoryLimit.own
    private let killsInGroup: Int
    private let freeHugePages: Int
    private let hugePages = HugePagePool.total

    /// - Parameter free: How many huge pages were free before the result's conditions were looked at: another program may have
    ///   taken them since.
    init(freeHugePages free: Int) {
        freeHugePages = max(free, HugePagePool.free)
        killsInGroup = ownGroup?.kills ?? 0
    }

    /// Says in a failure what happened on the host meanwhile; what the host alone may have brought about is a skip by
    /// chance.
    ///
    /// - Parameter isLastTry: Whether the result is not tried again if it is a skip by chance.
    func explain(_ result: inout CaseResult, ofProcessKilled wasKilled: Bool, isLastTry: Bool) {
        guard result.outcome == .fail else { return }
        if vmstat("oom_kill") > kills {
            // A case in a memory control group of its own may run out of memory by the kernel's fault.
            if wasKilled, !result.selected.selftestCase.requires.contains(.memoryGroup) {
                return skip(&result, whyKilled)
            }
            result.detail.append("disturbed: the kernel killed a process because memory ran out")
        }
        guard let needed = result.selected.hugePages else { return }
        // Nothing of the result is left, so that others bring about every change that is seen now.
        let traffic = HugePageTraffic.seen()
        let use = HugePageUse(
            free: (freeHugePages, traffic.leastFree), total: (hugePages, HugePagePool.total), needed: needed,
            isBusy: traffic.isBusy)
        guard use.hasChanged else { return }
        let users = traffic.users
        switch use.verdict(hasUsers: !users.isEmpty, isLastTry: isLastTry) {
        case .none: result.detail.append(use.description)
        case .enough: result.detail.append("\(use), used by \(users.joined(separator: ", ")); it needs \(needed)")
        case .perhaps where users.isEmpty: skip(&result, "other programs changed the pool of huge pages: \(use)")
        case .perhaps: skip(&result, "other programs used its huge pages: \(users.joined(separator: ", "))")
        }
    }

    private var whyKilled: String {
        guard let ownGroup, ownGroup.kills > killsInGroup else {
            return "the host ran out of memory and its process was killed: free some"
        }
        return """
            the memory control group of this run was full (\(ownGroup.mebibytes) MiB) and its process was killed: raise \
            \(ownGroup.limitFile), or the container's limit
            """
    }

    private func skip(_ result: inout CaseResult, _ reason: String) {
        result.detail.append("it failed: \(result.reason ?? "")")
        let skip = CaseSkip(thisTime: reason)
        result.skip(skip.reason, skip.cause)
    }
}

/// How the pool of huge pages changed while a result ran that failed.
struct HugePageUse: CustomStringConvertible {
    /// Whether other programs have brought about the failure.
    enum Verdict {
        /// No other program used the pool.
        case none
        /// Others may have taken a page that the result needed.
        case perhaps
        /// Others used the pool, but left what the result needs, after tries that came to the same.
        case enough
    }

    /// Pages that were free before and after it.
    let free: (before: Int, after: Int)
    /// Pages in the pool before and after it.
    let total: (before: Int, after: Int)
    /// How many free pages the result needs.
    let needed: Int
    /// Whether others were seen to take or to give back pages when it had ended.
    var isBusy = false

    var hasChanged: Bool { isBusy || free.before != free.after || total.before != total.after }

    /// Whether other programs may have brought about the failure.
    ///
    /// Nobody can tell how few pages were free in between, so a failure while others use the pool is tried again, each
    /// time with more free pages to begin with. If it still fails with so many left, the pool is not the reason.
    func verdict(hasUsers: Bool, isLastTry: Bool) -> Verdict {
        guard hasUsers || isBusy || total.before != total.after else { return .none }
        return isLastTry && free.after >= needed ? .enough : .perhaps
    }

    var description: String { "free huge pages: \(free.before) before it, \(free.after) after it" }
}

/// What other programs do with the pool of huge pages, seen by looking at it for a while.
///
/// A program that takes all pages for some milliseconds, again and again, is seldom there at the moment of one look.
struct HugePageTraffic {
    private(set) var users = HugePageUsers.all()
    private(set) var leastFree = HugePagePool.free
    private(set) var isBusy = false

    /// How long to look.
    private static let span = Duration.seconds(1)

    static func seen() -> HugePageTraffic {
        var traffic = HugePageTraffic()
        let end = ContinuousClock.now + span
        var free = traffic.leastFree
        while ContinuousClock.now < end {
            poll(nil, 0, 2)
            let now = HugePagePool.free
            guard now != free else { continue }
            free = now
            traffic.isBusy = true
            traffic.leastFree = min(traffic.leastFree, now)
            if traffic.users.isEmpty { traffic.users = HugePageUsers.all() }
        }
        return traffic
    }
}

/// The programs that have huge pages mapped now.
enum HugePageUsers {
    static func all() -> [String] {
        ProcFile.entries("/proc").compactMap { Int32($0) }.compactMap { pid in
            guard let size = ProcFile.number("HugetlbPages", in: "/proc/\(pid)/status"), size > 0 else { return nil }
            return "\(ProcFile.line("/proc/\(pid)/comm") ?? "?") (process \(pid), \(size >> 10) MiB)"
        }
    }
}
