internal import UserfaultPager

/// What a lazy restore came to.
public struct CRIUSummary: Hashable, Sendable {
    /// The tasks that were served.
    public let tasks: Int
    /// The pages that the images left to the service.
    public let pages: Int
    /// The pages of those that a thread has waited for.
    public let faults: Int
    /// Pages that were there already, or that the tasks have dropped before they came.
    public let pagesLeftOut: Int
    /// How long the service took, from its start to its end, in nanoseconds.
    public let nanoseconds: UInt64

    init(_ tasks: [any CRIUTask], nanoseconds: UInt64) {
        self.tasks = tasks.count
        pages = tasks.reduce(0) { $0 + $1.pageCount }
        let statistics = tasks.map(\.statistics)
        faults = statistics.reduce(0) { $0 + Int($1.missingFaults) }
        let copied = statistics.reduce(0) { $0 + Int($1.pagesCopied) }
        pagesLeftOut = max(0, pages - copied)
        self.nanoseconds = nanoseconds
    }
}

extension CRIUSummary: CustomStringConvertible {
    /// One line for a person.
    public var description: String {
        let milliseconds = nanoseconds / 1_000_000
        let thousandths = String(milliseconds % 1000 + 1000).dropFirst()
        return
            "restored \(pages) pages of \(tasks) tasks in \(milliseconds / 1000).\(thousandths) s: \(faults) were waited for, "
            + "\(pagesLeftOut) not needed"
    }
}
