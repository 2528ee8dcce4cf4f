import UserfaultFD

extension SelectedResult {
    /// The words by which `--tag` selects the result: the calls that it is about, the first kernel that has what it
    /// needs, and what it takes of the user, the host and time.
    package var tags: [String] {
        let covers = selftestCase.covers
        let calls = covers.flatMap(\.calls) + requirements.flatMap(\.calls)
        var tags = KernelCall.allCases.filter(calls.contains).map(\.rawValue)
        tags.append("since-\(firstKernel)")
        if needsRoot { tags.append("root") }
        if changesHost { tags.append("changes-host") }
        if isSlow { tags.append("slow") }
        if covers.contains(.upstream) { tags.append("upstream") }
        if QuickSet.contains(self) { tags.append("quick") }
        return tags
    }

    /// Whether its case is given more time than others.
    var isSlow: Bool { selftestCase.limit > SelftestCase.usualLimit }

    /// The first kernel series with every feature that the result needs.
    private var firstKernel: String {
        let features = requirements.reduce(into: UserfaultFD.Features()) {
            $0.formUnion($1.neededFeatures(for: memory))
        }
        let series = UserfaultFD.Features.names.filter { features.contains($0.feature) }
            .compactMap { FeatureProbe.firstKernel(with: $0.feature) }
        let device = requirements.contains(.device) ? ["6.1"] : []
        return (series + device + ["4.3"]).max { Self.numbers(of: $0).lexicographicallyPrecedes(Self.numbers(of: $1)) }!
    }

    private static func numbers(of series: String) -> [Int] { series.split(separator: ".").compactMap { Int($0) } }

    /// Whether no other result may run at the same time: the run changes the host for it, or it measures the host.
    package var isAlone: Bool {
        changesHost || memory?.isHugetlb == true || requirements.contains(.alone)
    }

    private var needsRoot: Bool {
        requirements.contains { requirement in
            switch requirement {
            case .root, .pageFrames, .privateMounts, .privateHugetlbfs, .gupTest, .memoryGroup, .ownSwap, .brokenPages:
                true
            default: false
            }
        }
    }

    /// Whether the run may change the host for the result.
    package var changesHost: Bool {
        requirements.contains { requirement in
            if case .setting = requirement { return true }
            return requirement.changesHost || requirement.hugePageSetting != nil
        }
    }
}

extension Requirement {
    /// The features that must be there on this memory type.
    fileprivate func neededFeatures(for memory: MemoryType?) -> UserfaultFD.Features {
        switch self {
        case .features(let features): features
        case .missingFaults, .minorFaults, .writeProtectFaults, .unmappedProtection: faultFeatures(for: memory)
        default: []
        }
    }

    /// The calls that only a kernel with these features has.
    fileprivate var calls: [KernelCall] {
        switch self {
        case .minorFaults: [.continue]
        case .writeProtectFaults, .unmappedProtection: [.writeprotect]
        case .features(let features):
            Self.callsByFeature.filter { features.contains($0.feature) }.map(\.call)
        default: []
        }
    }

    private static let callsByFeature: [(feature: UserfaultFD.Features, call: KernelCall)] = [
        (.move, .move), (.poison, .poison), (.readWriteProtect, .rwprotect),
    ]
}
