/// One line of a report: a case on one memory type.
package struct SelectedResult: Sendable {
    package let selftestCase: SelftestCase
    package let memory: MemoryType?
    /// Which repetition it belongs to; nil in a run without.
    package var iteration: Iteration?

    package init(selftestCase: SelftestCase, memory: MemoryType?) {
        self.selftestCase = selftestCase
        self.memory = memory
    }

    package struct Iteration: Hashable, Sendable {
        package let number: Int
        package let of: Int
    }

    /// As printed: `minor on shmem`, in a run with repetitions `minor on shmem (run 2 of 3)`.
    package var title: String {
        let title = memory.map { "\(selftestCase.name) on \($0.rawValue)" } ?? selftestCase.name
        return iteration.map { "\(title) (run \($0.number) of \($0.of))" } ?? title
    }

    /// As filtered: `minor/shmem`.
    package var identity: String {
        memory.map { "\(selftestCase.name)/\($0.rawValue)" } ?? selftestCase.name
    }
}

extension SelftestCase {
    package var results: [SelectedResult] {
        memory.isEmpty
            ? [SelectedResult(selftestCase: self, memory: nil)]
            : memory.map { SelectedResult(selftestCase: self, memory: $0) }
    }
}
