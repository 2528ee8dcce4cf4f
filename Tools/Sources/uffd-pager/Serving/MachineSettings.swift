import ArgumentParser
import UserfaultPager

/// What happens to a page that cannot be loaded, and to a machine that cannot be served.
enum OnFailure: String, ExpressibleByArgument, CaseIterable, Codable, Sendable {
    /// Touching the page is `SIGBUS`, which most monitors die of.
    case poison
    /// The process is killed at once.
    case kill

    /// What becomes of a page of a file: it is soon known that it cannot be loaded.
    var policy: FailurePolicy { FailurePolicy(ending: self == .kill ? .killOwner : .poison) }
}

/// How the machines of one socket are served.
struct MachineSettings: Sendable {
    /// What the log and the metrics call it.
    var name: String
    /// Where the memory comes from.
    var memory: MemorySource
    /// Pages to load first, as an earlier run recorded them.
    var prefetch: WorkingSet?
    /// Where to write which pages were touched, whenever a machine has ended.
    var record: WorkingSetRecord?
    var onFailure: OnFailure = .poison
    /// Whether all memory is loaded while the machine runs.
    var populates = false

    /// What becomes of pages.
    ///
    /// Servers are restarted: their pages are tried for a quarter of a minute and more.
    var policy: FailurePolicy {
        var policy = onFailure.policy
        if memory.isRemote { policy.retries = 14 }
        return policy
    }
}
