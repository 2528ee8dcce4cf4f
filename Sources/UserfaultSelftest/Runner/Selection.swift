import Glibc

/// Which results a run is made of.
package struct Selection {
    /// Globs on the whole identity; a result is selected when any of them matches, or when there are none.
    package var filters: [String] = []
    /// Globs on the whole identity; what matches any of them is left out.
    package var excludes: [String] = []
    /// Memory types; empty for all.
    ///
    /// A case that has no memory type is not selected when there are any.
    package var memory: [MemoryType] = []
    /// Words of ``SelectedResult/tags``; a result is selected when it has any of them, or when there are none.
    package var tags: [String] = []
    /// Whether only the quick set is selected.
    package var isQuick = false
    /// The identities of the results that an earlier run failed; nil for all.
    package var identities: Set<String>?

    package init(filters: [String] = [], memory: [MemoryType] = []) {
        self.filters = filters
        self.memory = memory
    }

    /// The selected results, case by case.
    ///
    /// The hidden cases are there only if they are asked for by name.
    package func results(of cases: [SelftestCase] = AllCases.cases) -> [SelectedResult] {
        (cases + (wantsHidden ? SelfCheckCases.cases : [])).flatMap(\.results).filter(selects)
    }

    private var wantsHidden: Bool {
        (filters + (identities ?? [])).contains { $0.hasPrefix(SelfCheckCases.prefix) }
    }

    private func selects(_ result: SelectedResult) -> Bool {
        let matches = { (glob: String) in fnmatch(glob, result.identity, 0) == 0 }
        return (memory.isEmpty || result.memory.map(memory.contains) ?? false)
            && (filters.isEmpty || filters.contains(where: matches)) && !excludes.contains(where: matches)
            && (tags.isEmpty || result.tags.contains(where: tags.contains))
            && (!isQuick || QuickSet.contains(result))
            && identities?.contains(result.identity) ?? true
    }

    /// The globs that match no result whatever else is asked for, which is a slip in the command line.
    package func uselessGlobs() -> [String] {
        (filters + excludes).filter { glob in
            let all = AllCases.cases + (glob.hasPrefix(SelfCheckCases.prefix) ? SelfCheckCases.cases : [])
            return !all.flatMap(\.results).contains { fnmatch(glob, $0.identity, 0) == 0 }
        }
    }

    /// The tags that no result has.
    package func uselessTags() -> [String] {
        let all = Set(AllCases.cases.flatMap(\.results).flatMap(\.tags))
        return tags.filter { !all.contains($0) }
    }

    /// The one result that `identity` names exactly, hidden ones included.
    package static func result(identity: String) -> SelectedResult? {
        (AllCases.cases + SelfCheckCases.cases).flatMap(\.results).first { $0.identity == identity }
    }
}
