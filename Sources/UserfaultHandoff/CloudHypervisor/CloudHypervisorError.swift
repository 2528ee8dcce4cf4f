/// Why a machine of Cloud Hypervisor could not be saved or restored.
public enum CloudHypervisorError: Error, Hashable, Sendable {
    /// The connection failed, or Cloud Hypervisor broke the protocol.
    case handoff(HandoffError)

    /// A file of the folder cannot be used; the text says why.
    case folder(String)

    /// Cloud Hypervisor gave up.
    case abandoned

    /// Cloud Hypervisor answered that it cannot go on, in this step.
    case rejected(String)

    /// Pages could not be loaded, and Cloud Hypervisor was told: so many.
    case lostPages(Int)

    /// This host gives memory files huge pages, which would hide pages that were not loaded.
    case hugeMemoryFiles
}

extension CloudHypervisorError: CustomStringConvertible {
    /// One line that says what went wrong.
    public var description: String {
        switch self {
        case .handoff(let error): "\(error)"
        case .folder(let text): text
        case .abandoned: "Cloud Hypervisor gave up"
        case .rejected(let step): "Cloud Hypervisor refused the \(step): its log says why"
        case .lostPages(let count): "\(count) pages could not be loaded"
        case .hugeMemoryFiles:
            """
            /sys/kernel/mm/transparent_hugepage/shmem_enabled gives memory files huge pages, and pages cannot be served one \
            by one: write never, or advise, to it
            """
        }
    }
}

/// Makes whatever handing over throws an error of the session.
func asCloudHypervisorError<Result: ~Copyable>(
    _ body: () throws(HandoffError) -> Result
) throws(CloudHypervisorError) -> Result {
    do throws(HandoffError) { return try body() } catch { throw .handoff(error) }
}
