import Glibc
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
    private var changes: SystemChanges
    /// The settings that differ from what they were, for as long as results need it.
    private var held: [SystemSetting: String] = [:]
    private var hasMemoryGroup = false

    init(host: Host, changes: SystemChanges) {
        self.host = host
        self.changes = changes
    }

    mutating func prepare(_ result: SelectedResult) -> Readiness {
        if let unusable = host.unusable { return .missing(reason: unusable) }
        var environment: [String] = []
        var settings: [SystemSetting: String] = [:]
        for requirement in result.requirements {
            let reason: String?
            switch requirement {
            case .setting(let setting, let value):
                settings[setting] = value
                reason = hold(setting, at: value)
            case .transparentHugePages, .shmemHugePages:
                let (setting, sufficient) = requirement.hugePageSetting
                settings[setting] =
                    sufficient.contains(held[setting] ?? setting.current ?? "") ? held[setting] : sufficient[0]
                reason = settings[setting].flatMap { hold(setting, at: $0) }
            case .memoryGroup:
                switch changes.ask(.makeMemoryGroup) {
                case .success(let path):
                    hasMemoryGroup = true
                    environment.append("\(MemoryGroups.variable)=\(path)")
                    reason = nil
                case .failure(let refusal): reason = refusal.reason
                }
            default:
                reason = missing(requirement, for: result.memory)
            }
            if let reason { return .missing(reason: reason) }
        }
        for setting in held.keys where settings[setting] == nil {
            _ = changes.ask(.restore(path: setting.path))
            held[setting] = nil
        }
        return .ready(environment: environment)
    }

    /// Takes back what belongs to one result alone.
    mutating func release() {
        if hasMemoryGroup { _ = changes.ask(.removeMemoryGroup) }
        hasMemoryGroup = false
    }

    /// Has every change undone.
    mutating func finish() {
        changes.finish()
    }

    /// The processes that belong to the runner and not to a case.
    var ownProcesses: Set<Int32> { changes.processes }

    private mutating func hold(_ setting: SystemSetting, at value: String) -> String? {
        guard let current = setting.current else { return "this kernel has no \(setting.path)" }
        guard current != value else { return nil }
        if case .failure(let refusal) = changes.ask(.set(path: setting.path, value: value)) { return refusal.reason }
        held[setting] = value
        return nil
    }

    /// Why `requirement` is not met, or nil when it is.
    private mutating func missing(_ requirement: Requirement, for memory: MemoryType?) -> String? {
        switch requirement {
        case .features(let features):
            host.lacks(features)
        case .missingFaults, .minorFaults, .writeProtectFaults:
            host.lacks(requirement.faultFeatures(for: memory))
        case .kernelFaults:
            host.lacks("kernel-mode-faults").map { "faults of the kernel cannot be handled: \($0)" }
        case .device:
            host.lacks("device").map { "no /dev/userfaultfd for this user: \($0)" }
        case .root:
            host.isRoot ? nil : "needs root"
        case .pageFrames:
            host.lacks("page-frame-numbers")
                ?? (access("/proc/kpageflags", R_OK) == 0 ? nil : "this kernel has no /proc/kpageflags")
        case .hugePages(let count):
            changes.provide(.hugePages(free: count), unless: HugePagePool.free >= count) {
                "needs \(count) free huge pages, there are \(HugePagePool.free)"
            }
        case .swap:
            changes.provide(.swap, unless: ProcFile.number("SwapFree", in: "/proc/meminfo") ?? 0 >= 32 << 10) {
                "needs 32 MiB of free swap space"
            }
        case .privateMounts:
            !host.isRoot ? "needs root, for mounts" : changes.areAllowed ? nil : "system changes are not allowed"
        case .gupTest:
            access("/sys/kernel/debug/gup_test", R_OK | W_OK) == 0
                ? nil : "no /sys/kernel/debug/gup_test: needs root, a mounted debugfs and CONFIG_GUP_TEST"
        case .file(let path):
            access(path, F_OK) == 0 ? nil : "this kernel has no \(path)"
        case .setting, .transparentHugePages, .shmemHugePages, .memoryGroup:
            preconditionFailure("\(requirement) is looked after by prepare")
        }
    }
}

extension SelectedResult {
    /// What the case requires, and what its memory type does.
    var requirements: [Requirement] {
        let asksForHugePages = selftestCase.requires.contains { if case .hugePages = $0 { true } else { false } }
        let pool: [Requirement] = memory.map { $0.isHugetlb && !asksForHugePages } ?? false ? [.hugePages(8)] : []
        return selftestCase.requires + pool
    }
}

extension Requirement {
    /// The features that faults of this kind need on a memory type.
    fileprivate func faultFeatures(for memory: MemoryType?) -> UserfaultFD.Features {
        guard let memory, memory != .anon else {
            return self == .writeProtectFaults ? .writeProtect : []
        }
        return switch self {
        case .missingFaults: memory.isHugetlb ? .missingHugetlbfs : .missingShmem
        case .minorFaults: memory.isHugetlb ? .minorHugetlbfs : .minorShmem
        default: [.writeProtect, .writeProtectHugetlbfsShmem]
        }
    }

    /// The setting behind transparent huge pages, and the values with which madvise gets some, the mildest first.
    fileprivate var hugePageSetting: (SystemSetting, sufficient: [String]) {
        self == .shmemHugePages
            ? (.shmemHugePages, ["advise", "within_size", "always", "force"])
            : (.transparentHugePages, ["madvise", "always"])
    }
}
