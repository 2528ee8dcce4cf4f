import ArgumentParser
import UserfaultPager

/// What happens to a page that cannot be loaded, and to a machine that cannot be served.
enum OnFailure: String, ExpressibleByArgument, CaseIterable, Codable, Sendable {
    /// Touching the page is `SIGBUS`, which most monitors die of.
    case poison
    /// The process is killed at once.
    case kill

    /// What becomes of a page.
    ///
    /// - Parameter retries: How often it is tried again.
    func policy(retries: Int) -> FailurePolicy {
        FailurePolicy(retries: retries, ending: self == .kill ? .killOwner : .poison)
    }
}

/// How often a page is tried again that cannot be loaded.
enum Retries {
    /// Of a file: it is soon known that it cannot be loaded.
    static let ofFiles = FailurePolicy().retries
    /// Of a server, which may be restarted: for a quarter of a minute and more.
    static let ofServers = 14
    static let range = 0...1000

    /// - Throws: `ValidationError`.
    static func check(_ number: Int?) throws {
        guard number.map(range.contains) ?? true else {
            throw ValidationError("--retries needs a number from \(range.lowerBound) to \(range.upperBound)")
        }
    }
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

    /// How often a page is tried again that cannot be loaded; `nil` for what its source needs.
    var retries: Int?

    /// What becomes of pages.
    var policy: FailurePolicy {
        onFailure.policy(retries: retries ?? (memory.isRemote ? Retries.ofServers : Retries.ofFiles))
    }

    /// How long a client may wait that comes before the server with its memory: no longer than its pages would.
    var patience: Duration { .milliseconds(1 << min(policy.retries, 15)) }
}
