import Glibc
import SystemPackage
import UserfaultFD

/// Decides before each result whether what the case requires is there, and has it provided where that is allowed.
struct Conditions {
    /// What a result may start with.
    enum Readiness {
        /// Variables for the environment of the result's process.
        case ready(environment: [String])
        case missing(Lack)
    }

    private let host: Host
    private let means: Means
    private var changes: SystemChanges
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
        if let impossible { return .missing(.host(impossible)) }
        // What only needs a look comes first, so that nothing is changed for a result that is skipped anyway.
        let requirements = result.requirements
        for requirement in requirements.filter({ !$0.changesHost }) + requirements.filter(\.changesHost) {
            if let lack = missing(requirement, for: result.memory) { return .missing(lack) }
        }
        if attempt > 1, let count = result.hugePages { _ = changes.ask(.hugePages(free: count * attempt)) }
        if requirements.contains(where: \.needsSetting), let lack = changes.keepOthersAway() { return .missing(lack) }
        if let lack = hold(settings(for: requirements)) { return .missing(lack) }
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
        changes.releaseLock()
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
    private mutating func hold(_ wanted: [SystemSetting: String]) -> Lack? {
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
                return .refused(refusal, "needs \(setting.path) to be \(value)")
            }
        }
        return nil
    }

    /// Why `requirement` is not met, or nil when it is.
    private mutating func missing(_ requirement: Requirement, for memory: MemoryType?) -> Lack? {
        switch requirement {
        case .features(let features):
            host.lacks(features)
        case .missingFaults, .minorFaults, .writeProtectFaults, .unmappedProtection:
            host.lacks(requirement.faultFeatures(for: memory))
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
        case .kernelFaults, .device, .systemCall, .root, .descriptors, .threads, .addressSpace, .lockedPages,
            .tmpfsRoom, .pageFrames, .gupTest:
            missingOnHost(requirement, for: memory).map(Lack.host)
        }
    }

    /// The same of what the host has or has not, and this user may use or may not.
    private func missingOnHost(_ requirement: Requirement, for memory: MemoryType?) -> String? {
        switch requirement {
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
        case .pageFrames:
            means.pageFrames
                ? nil
                : host.lacks(.pageFrameNumbers)
                    ?? "page frame numbers are hidden; run as root of the initial user namespace"
        case .gupTest:
            access("/sys/kernel/debug/gup_test", R_OK | W_OK) == 0
                ? nil : "no /sys/kernel/debug/gup_test: needs root, a mounted debugfs and CONFIG_GUP_TEST"
        default:
            means.shortage(of: requirement, for: memory)
        }
    }

    /// Who has not got a file, and the remedy if it is the host.
    static func absence(of path: String) -> Lack {
        if path.hasPrefix("/sys/"), access("/sys/kernel", F_OK) != 0 {
            return .host("no \(path), because no /sys is there: mount it (mount -t sysfs sysfs /sys)")
        }
        if path.hasPrefix("/sys/devices/system/node/") {
            return .host("this host has no second NUMA node (\(path)): use a machine with two, or a virtual one")
        }
        if path.hasPrefix("/dev/") {
            return .host("no \(path): load its module, and give it to a container (--device \(path))")
        }
        let isOfKernel = ["/sys/", "/proc/"].contains { path.hasPrefix($0) }
        return isOfKernel ? .kernel("this kernel has no \(path)") : .host("this host has no \(path): install it")
    }

    private func unwritable(_ path: String) -> Lack? {
        guard access(path, W_OK) != 0 else { return nil }
        let error = Errno(rawValue: errno)
        return .host(
            "\(path) cannot be written (\(error)): "
                + (error == .readOnlyFileSystem ? "mount it writable" : "run as root of the initial user namespace"))
    }

    /// Where the guardian cannot make sure of huge pages, those that are there are shared with every other program: no
    /// other run may use them at the same time, and the last of them is left to others.
    private mutating func missingHugePages(_ count: Int) -> Lack? {
        guard access(HugePagePool.path, F_OK) == 0 else { return Self.absence(of: HugePagePool.path) }
        guard case .failure(let refusal) = changes.ask(.hugePages(free: count)) else { return nil }
        if refusal.isByOtherRun { return .refused(refusal) }
        if HugePagePool.total > count, let lack = changes.holdLock() { return lack }
        let free = HugePagePool.free
        guard free <= count else { return nil }
        return .refused(
            refusal, "needs \(count) free huge pages\(free == count ? " and one to spare" : ""), there are \(free)")
    }

    private func mountsMissing(_ canMount: Bool, _ what: String) -> Lack? {
        guard host.isRoot else { return .host("needs root, for mounts") }
        guard changes.areAllowed else { return .refused(SystemChanges.forbidden) }
        return canMount
            ? nil : .host("needs to mount \(what) for itself: run as root of the initial user namespace")
    }

    private mutating func findOwnSwap() -> Lack? {
        switch changes.ask(.swap) {
        case .success(let path):
            swap = path
            return nil
        case .failure(let refusal):
            return .refused(refusal, "needs swap space that it may turn off")
        }
    }

    private mutating func keepBrokenPages() -> Lack? {
        guard host.isRoot else { return .host("needs root") }
        guard ProcFile.number("HardwareCorrupted", in: "/proc/meminfo") != nil else {
            return .kernel("this kernel knows no broken pages (CONFIG_MEMORY_FAILURE)")
        }
        switch changes.ask(.keepBrokenPages) {
        case .success(let list): brokenPages = list
        case .failure(let refusal) where !losesMemory:
            let remedy = "\(refusal.reason), or allow it (--lose-memory)"
            return .options("would break pages of memory until the next boot: \(remedy)")
        case .failure: break
        }
        return nil
    }

    private mutating func makeMemoryGroup() -> Lack? {
        switch changes.ask(.makeMemoryGroup) {
        case .success(let path):
            memoryGroup = path
            return nil
        case .failure(let refusal):
            return .refused(refusal, "needs a memory control group")
        }
    }
}
