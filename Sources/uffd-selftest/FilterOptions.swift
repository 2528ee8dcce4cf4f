import ArgumentParser
import SystemPackage
import UserfaultSelftest

extension MemoryType: ExpressibleByArgument {}

/// Which results a command works on.
struct FilterOptions: ParsableArguments {
    @Option(
        name: .long, help: ArgumentHelp("Select only results that match this glob. Can be repeated.", valueName: "glob")
    )
    var filter: [String] = []

    @Option(
        name: .long, help: ArgumentHelp("Leave out results that match this glob. Can be repeated.", valueName: "glob"))
    var exclude: [String] = []

    @Option(
        name: .long, help: ArgumentHelp("Select only results on this memory type. Can be repeated.", valueName: "type"))
    var memory: [MemoryType] = []

    @Option(
        name: .long,
        help: ArgumentHelp("Select only results that have this tag; see list. Can be repeated.", valueName: "tag"))
    var tag: [String] = []

    @Option(
        name: .long, help: ArgumentHelp("Leave out results that have this tag. Can be repeated.", valueName: "tag"))
    var excludeTag: [String] = []

    @Flag(
        name: .long, help: "Select a few results of every call and every memory type, which take less than 3 seconds.")
    var quick = false

    @Option(
        name: .long,
        help: ArgumentHelp("Select only results that failed in this JSON report of an earlier run.", valueName: "file"),
        completion: .file())
    var rerunFailed: String?

    func selection() throws -> Selection {
        var selection = Selection(filters: filter, memory: memory)
        selection.excludes = exclude
        selection.tags = tag
        selection.isQuick = quick
        selection.excludedTags = excludeTag
        if let rerunFailed {
            let failures = try usable { try EarlierReport.failures(in: rerunFailed) }
            selection.identities = failures.known
            selection.unknown = failures.unknown
        }
        return selection
    }

    /// Ends the program, successfully, if the results that failed are asked for, and none did.
    func endIfNothingFailed(_ selection: Selection) throws {
        guard let rerunFailed, selection.identities?.isEmpty == true else { return }
        ReportOutput(.standardError).line(
            "uffd-selftest: nothing failed in \(rerunFailed): there is nothing to run again")
        throw ExitCode.success
    }

    func validate() throws {
        let selection = try selection()
        for useless in selection.uselessGlobs() {
            let wider = useless + "/*"
            let hint =
                Selection(filters: [wider]).uselessGlobs().isEmpty
                ? "'\(wider)' does" : "see uffd-selftest list for what there is"
            throw ValidationError("no result matches '\(useless)', a glob on the whole name CASE/TYPE; \(hint)")
        }
        for useless in selection.uselessTags() {
            throw ValidationError("no result has the tag '\(useless)'; see uffd-selftest list --format pretty")
        }
        guard !selection.results().isEmpty || selection.identities?.isEmpty == true else {
            throw ValidationError("no result matches all of what is asked for")
        }
    }
}

/// Makes a file that is no use wrong usage.
func usable<Value>(_ body: () throws -> Value) throws -> Value {
    do {
        return try body()
    } catch let useless as UselessFile {
        throw ValidationError(useless.description)
    }
}
