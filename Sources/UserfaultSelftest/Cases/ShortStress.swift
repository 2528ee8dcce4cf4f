import UserfaultFD

/// Short stress runs, so that every run looks for races; `uffd-selftest stress` runs them for long.
enum StressCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "stress-bounce", on: .all,
            "pages that many threads lock, copy and write-protect at once keep their contents and counts",
            requires: [.threads(10), .missingFaults, .hugePages(16)], limit: .seconds(60),
            covers: [.atomicity, .manyWaiters]
        ) { context in
            try run(.bounce, context)
        },
        SelftestCase(
            "stress-minor", on: .pageCache,
            "pages that are continued twice, touched, written and dropped at once stay as the file has them",
            requires: [.threads(10), .minorFaults, .hugePages(16)], limit: .seconds(60),
            covers: [.continueExists, .failedContinue, .privateStores]
        ) { context in
            try run(.minor, context)
        },
        SelftestCase(
            "stress-events", on: .smallPages,
            "memory that is dropped, moved and forked while it is filled holds its pattern in parent and child",
            requires: [
                .threads(10), .descriptors(64), .missingFaults, .features([.eventRemap, .eventRemove, .eventUnmap]),
            ], limit: .seconds(60),
            covers: [.removeEvent, .remapEvent, .forkEvent]
        ) { context in
            try run(.events, context)
        },
        SelftestCase(
            "stress-truncate", on: .allShmem,
            "fills that race with truncation and holes leave nothing mapped or charged behind the file's end",
            requires: [.threads(10), .missingFaults], limit: .seconds(60), covers: [.continueRaces, .truncation]
        ) { context in
            try run(.truncate, context)
        },
    ]

    private static func run(_ mode: StressMode, _ context: CaseContext) throws {
        var options = StressOptions(
            memory: context.memory, mebibytes: context.memory.isHugetlb ? 4 : 1, bounces: 1,
            duration: .milliseconds(100), threads: 2, modes: [mode])
        // Each bit of a mode once set and once not, in few bounces: emulated machines run this too.
        options.bounces = [0b1001, 0b0110, 0b1111]
        do {
            try StressRun(options, in: context).run()
        } catch let skip as StressSkip {
            throw CaseSkip(skip.reason)
        }
    }
}
