import Glibc
import SystemPackage
import UserfaultFD

/// Decides before each result whether what the case requires is there, and has it provided where that is allowed.
struct Conditions {
    /// What a result may start with.
    enum Readiness {
        /// Variables for the environment of the result's process.
        case ready(environment: [String])
        case missing(reason: String)
    }

    private let host: Host
    private let means: Means
    private var changes: SystemChanges
    /// Held while a result uses huge pages that the guardian does not keep for this run.
    private let poolLock = RunLock()
    /// The settings that are not as they were, with what they were.
    private var originals: [SystemSetting: String] = [:]
    /// The memory control group of the result that runs.
    private var memoryGroup: String?
    /// The swap space that the result that runs may turn off.
    private var swap: String?
    /// The list of the pages that the result that runs breaks.
    private var brokenPages: String?
    /// Whether pages may be broken that cannot be healed before the next boot.
    private let losesMemory: Bool

    /// Why no result can run here at all.
    private let impossible: String?

    init(host: Host, means: Means, impossible: String?, changes: SystemChanges, losesMemory: Bool) {
        self.host = host
        self.means = means
        self.impossible = impossible
        self.changes = changes
        self.losesMemory = losesMemory
    }

    /// - Parameter attempt: Counts the tries of the result, from 1. Each has more huge pages where others use them too.
    mutating func prepare(_ result: SelectedResult, attempt: Int) -> Readiness {
        if let impossible { return .missing(reason: impossible) }
        // What only needs a look comes first, so that nothing is changed for a result that is skipped anyway.
        let requirements = result.requirements
        for requirement in requirements.filter({ !$0.changesHost }) + requirements.filter(\.changesHost) {
            if let reason = missing(requirement, for: result.memory) { return .missing(reason: reason) }
        }
        if attempt > 1, let count = result.hugePages { _ = changes.ask(.hugePages(free: count * attempt)) }
        if let reason = hold(settings(for: requirements)) { return .missing(reason: reason) }
        let group = memoryGroup.map { ["\(MemoryGroups.variable)=\($0)"] } ?? []
        let ownSwap = swap.map { ["\(SwapSpace.variable)=\($0)"] } ?? []
        let broken = brokenPages.map { ["\(BrokenPages.variable)=\($0)"] } ?? []
        return .ready(environment: group + ownSwap + broken + ["\(Slowness.variable)=\(means.slowness)"])
    }

    /// A time that is enough on an ordinary host, made enough for this one.
    func stretched(_ time: Duration) -> Duration { time * means.slowness }

    /// Takes back what belongs to one result alone.
    mutating func release() {
        if memoryGroup != nil { _ = changes.ask(.removeMemoryGroup) }
        memoryGroup = nil
        // On again: other results use what swap space there is.
        if swap != nil { _ = changes.ask(.swap) }
        swap = nil
        if brokenPages != nil { _ = changes.ask(.healBrokenPages) }
        brokenPages = nil
        poolLock.release()
    }

    /// Has every change undone; answers what could not be.
    mutating func finish() -> [String] {
        changes.finish()
    }

    /// The processes that belong to the runner and not to a case.
    var ownProcesses: Set<Int32> { changes.processes }

    /// The values that settings must have for these requirements.
    private func settings(for requirements: [Requirement]) -> [SystemSetting: String] {
        var wanted: [SystemSetting: String] = [:]
        for requirement in requirements {
            if case .setting(let setting, let value) = requirement { wanted[setting] = value }
            if let (setting, sufficient) = requirement.hugePageSetting {
                let original = originals[setting] ?? setting.current ?? ""
                if !sufficient.contains(original) { wanted[setting] = sufficient[0] }
            }
        }
        return wanted
    }

    /// Sets what is wanted and puts back what is not wanted any more; answers why that cannot be done.
    private mutating func hold(_ wanted: [SystemSetting: String]) -> String? {
        for setting in originals.keys where wanted[setting] == nil {
            _ = changes.ask(.restore(path: setting.path))
            originals[setting] = nil
        }
        // In order, so that the reason of a skip is the same in each run.
        for (setting, value) in wanted.sorted(by: { $0.key.path < $1.key.path }) {
            guard let current = setting.current else { return Self.absence(of: setting.path) }
            guard current != value else { continue }
            originals[setting] = originals[setting] ?? current
            if case .failure(let refusal) = changes.ask(.set(path: setting.path, value: value)) {
                return "needs \(setting.path) to be \(value): \(refusal.reason)"
            }
        }
        return nil
    }

    /// Why `requirement` is not met, or nil when it is.
    private mutating func missing(_ requirement: Requirement, for memory: MemoryType?) -> String? {
        switch requirement {
        case .features(let features):
            host.lacks(features)
        case .missingFaults, .minorFaults, .writeProtectFaults, .unmappedProtection:
            host.lacks(requirement.faultFeatures(for: memory))
        case .kernelFaults:
            host.lacks(.kernelModeFaults).map { "faults of the kernel cannot be handled: \($0)" }
        case .device:
            host.lacks(.device).map { "no /dev/userfaultfd for this user: \($0)" }
        case .systemCall:
            OpeningDiagnosis.filterAnswer.map {
                "userfaultfd(2) is filtered (\($0)): allow it in the seccomp profile or the security module's policy"
            }
        case .root:
            host.isRoot ? nil : "needs root"
        case .descriptors, .threads, .addressSpace, .lockedPages, .tmpfsRoom:
            means.shortage(of: requirement, for: memory)
        case .pageFrames:
            means.pageFrames
                ? nil
                : host.lacks(.pageFrameNumbers)
                    ?? "page frame numbers are hidden; run as root of the initial user namespace"
        case .hugePages(let count):
            missingHugePages(count)
        case .swap:
            changes.provide(.swap, unless: ProcFile.number("SwapFree", in: "/proc/meminfo") ?? 0 >= 32 << 10) {
                "needs 32 MiB of free swap space"
            }
        case .ownSwap:
            findOwnSwap()
        case .brokenPages:
            keepBrokenPages()
        case .privateMounts:
            mountsMissing(means.tmpfsMounts, "a tmpfs")
        case .privateHugetlbfs:
            mountsMissing(means.hugetlbfsMounts, "a hugetlbfs")
        case .gupTest:
            access("/sys/kernel/debug/gup_test", R_OK | W_OK) == 0
                ? nil : "no /sys/kernel/debug/gup_test: needs root, a mounted debugfs and CONFIG_GUP_TEST"
        case .file(let path):
            access(path, F_OK) == 0 ? nil : Self.absence(of: path)
        case .writableFile(let path):
            missing(.file(path), for: memory) ?? unwritable(path)
        case .memoryGroup:
            makeMemoryGroup()
        case .setting, .transparentHugePages, .shmemHugePages:
            nil  // A setting is held when all else is there.
        case .alone:
            nil  // The run keeps others away.
        }
    }

    /// Who has not got a file, and the remedy if it is the host.
    private static func absence(of path: String) -> String {
        if path.hasPrefix("/sys/"), access("/sys/kernel", F_OK) != 0 {
            return "no \(path), because no /sys is there: mount it (mount -t sysfs sysfs /sys)"
        }
        let isOfKernel = ["/sys/", "/proc/", "/dev/"].contains { path.hasPrefix($0) }
        return isOfKernel ? "this kernel has no \(path)" : "this host has no \(path): install it"
    }

    private func unwritable(_ path: String) -> String? {
        guard access(path, W_OK) != 0 else { return nil }
        let error = Errno(rawValue: errno)
        return "\(path) cannot be written (\(error)): "
            + (error == .readOnlyFileSystem ? "mount it writable" : "run as root of the initial user namespace")
    }

    /// Where the guardian cannot make sure of huge pages, those that are there are shared with every other program: no
    /// other run may use them at the same time, and the last of them is left to others.
    private mutating func missingHugePages(_ count: Int) -> String? {
        guard case .failure(let refusal) = changes.ask(.hugePages(free: count)) else { return nil }
        if refusal.isByOtherRun { return refusal.reason }
        if HugePagePool.total > count, let reason = changes.hold(poolLock) { return reason }
        let free = HugePagePool.free
        guard free <= count else { return nil }
        return "needs \(count) free huge pages\(free == count ? " and one to spare" : ""), there are \(free): "
            + refusal.reason
    }

    private func mountsMissing(_ canMount: Bool, _ what: String) -> String? {
        guard host.isRoot else { return "needs root, for mounts" }
        guard changes.areAllowed else { return "system changes are not allowed" }
        return canMount ? nil : "needs to mount \(what) for itself: run as root of the initial user namespace"
    }

    private mutating func findOwnSwap() -> String? {
        switch changes.ask(.swap) {
        case .success(let path):
            swap = path
            return nil
        case .failure(let refusal):
            return "needs swap space that it may turn off: \(refusal.reason)"
        }
    }

    private mutating func keepBrokenPages() -> String? {
        guard host.isRoot else { return "needs root" }
        guard ProcFile.number("HardwareCorrupted", in: "/proc/meminfo") != nil else {
            return "this kernel knows no broken pages (CONFIG_MEMORY_FAILURE)"
        }
        switch changes.ask(.keepBrokenPages) {
        case .success(let list): brokenPages = list
        case .failure(let refusal) where !losesMemory:
            return "would break pages of memory until the next boot: \(refusal.reason), or allow it (--lose-memory)"
        case .failure: break
        }
        return nil
    }

    private mutating func makeMemoryGroup() -> String? {
        switch changes.ask(.makeMemoryGroup) {
        case .success(let path):
            memoryGroup = path
            return nil
        case .failure(let refusal):
            return "needs a memory control group: \(refusal.reason)"
        }
    }
}
