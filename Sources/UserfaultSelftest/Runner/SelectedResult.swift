import Glibc

/// One line of a report: a case on one memory type.
package struct SelectedResult: Sendable {
    package let selftestCase: SelftestCase
    package let memory: MemoryType?

    /// As printed: `minor on shmem`.
    package var title: String {
        memory.map { "\(selftestCase.name) on \($0.rawValue)" } ?? selftestCase.name
    }

    /// As filtered: `minor/shmem`.
    package var identity: String {
        memory.map { "\(selftestCase.name)/\($0.rawValue)" } ?? selftestCase.name
    }
}

/// The results of a run in their order, each as often as the run is repeated.
package struct Plan {
    package let results: [SelectedResult]
    package let repetitions: Int

    package var count: Int { results.count * repetitions }

    package subscript(number: Int) -> SelectedResult { results[number % results.count] }
}

/// Which results a run is made of.
package struct Selection {
    /// Globs on the whole identity; a result is selected when any of them matches, or when there are none.
    package var filters: [String]
    /// Memory types; empty for all.
    ///
    /// A case that has no memory type is not selected when there are any.
    package var memory: [MemoryType]

    package init(filters: [String] = [], memory: [MemoryType] = []) {
        self.filters = filters
        self.memory = memory
    }

    /// The selected results, case by case.
    ///
    /// The hidden cases are there only for a filter that begins with their prefix.
    package func results(of cases: [SelftestCase] = AllCases.cases) -> [SelectedResult] {
        let wantsHidden = filters.contains { $0.hasPrefix(SelfCheckCases.prefix) }
        return (cases + (wantsHidden ? SelfCheckCases.cases : []))
            .flatMap(\.results)
            .filter { result in
                memory.isEmpty || result.memory.map(memory.contains) ?? false
            }
            .filter { result in
                filters.isEmpty || filters.contains { fnmatch($0, result.identity, 0) == 0 }
            }
    }

    /// The filters that match no result whatever the memory type, which is a slip in the command line.
    package func uselessFilters() -> [String] {
        filters.filter { Selection(filters: [$0]).results().isEmpty }
    }

    /// The one result that `identity` names exactly, hidden ones included.
    package static func result(identity: String) -> SelectedResult? {
        (AllCases.cases + SelfCheckCases.cases).flatMap(\.results).first { $0.identity == identity }
    }
}

extension SelftestCase {
    package var results: [SelectedResult] {
        memory.isEmpty
            ? [SelectedResult(selftestCase: self, memory: nil)]
            : memory.map { SelectedResult(selftestCase: self, memory: $0) }
    }
}
