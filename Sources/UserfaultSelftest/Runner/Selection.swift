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
    /// Words of ``SelectedResult/tags``; a result that has any of them is left out.
    package var excludedTags: [String] = []
    /// Whether only the quick set is selected.
    package var isQuick = false
    /// The identities of the results that an earlier run failed; nil for all.
    package var identities: Set<String>?
    /// The results of an earlier run that failed and that this program does not have.
    package var unknown: [String] = []

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
        let matches = { (name: String) in Self.matches(name, result) }
        return (memory.isEmpty || result.memory.map(memory.contains) ?? false)
            && (filters.isEmpty || filters.contains(where: matches)) && !excludes.contains(where: matches)
            && (tags.isEmpty || result.tags.contains(where: tags.contains))
            && (excludedTags.isEmpty || !result.tags.contains(where: excludedTags.contains))
            && (!isQuick || QuickSet.contains(result))
            && identities?.contains(result.identity) ?? true
    }

    /// Whether a name means a result: a glob on its identity, the name of its case, or what a report calls it.
    ///
    /// A report calls two results `minor on shmem, tmpfs (run 2 of 3)`.
    static func matches(_ name: String, _ result: SelectedResult) -> Bool {
        if name == result.selftestCase.name || fnmatch(name, result.identity, 0) == 0 { return true }
        guard name.contains(" "), let title = name.wholeMatch(of: /(.+?)(?: on (.+?))?(?: \(run \d+ of \d+\))?/) else {
            return false
        }
        guard let memory = title.2 else { return title.1 == result.selftestCase.name }
        return memory.split(separator: ", ").contains { fnmatch("\(title.1)/\($0)", result.identity, 0) == 0 }
    }

    /// The globs that match no result whatever else is asked for, which is a slip in the command line.
    package func uselessGlobs() -> [String] {
        (filters + excludes).filter { glob in
            let all = AllCases.cases + (glob.hasPrefix(SelfCheckCases.prefix) ? SelfCheckCases.cases : [])
            return !all.flatMap(\.results).contains { Self.matches(glob, $0) }
        }
    }

    /// The tags that no result has.
    package func uselessTags() -> [String] {
        let all = Set(AllCases.cases.flatMap(\.results).flatMap(\.tags))
        return (tags + excludedTags).filter { !all.contains($0) }
    }

    /// What a person should know of results that are unknown; nil if there are none.
    package var unknownNote: String? {
        guard !unknown.isEmpty else { return nil }
        return
            "\(unknown.count) results failed earlier that this program does not have: \(unknown.joined(separator: ", "))"
    }

    /// The one result that `identity` names exactly, hidden ones included.
    package static func result(identity: String) -> SelectedResult? {
        (AllCases.cases + SelfCheckCases.cases).flatMap(\.results).first { $0.identity == identity }
    }
}
