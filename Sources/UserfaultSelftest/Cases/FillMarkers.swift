import Glibc
import SystemPackage
import UserfaultFD

/// Fills where the page table holds no page but a marker: poison, write protection of an empty page, a guard.
enum FillMarkerCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "fill-over-poison", on: .all,
            "COPY and CONTINUE, and ZEROPAGE of shared memory, replace poison; ZEROPAGE of private memory does not",
            requires: [.missingFaults, .features(.poison)], covers: [.poison, .zeropage]
        ) { context in
            for call in try FillCall.working(on: context.memory) where call != .poison {
                let trial = try FillTrial(call, context)
                defer { trial.end() }
                try trial.uffd.poison(trial.area.pages(1..<3))
                if replaces(call, on: context.memory) {
                    try expectEqual(trial.fill(0..<4), trial.done(4), "\(call) over poison")
                    try trial.expectFilled(0..<4)
                    try trial.area.expectMapped(0..<4)
                } else {
                    try expectEqual(trial.fill(1..<3), .failed(.fileExists), "\(call) over poison")
                    for page in 1..<3 {
                        try expectEqual(Touch.load(trial.area.address(page)).signal, SIGBUS, "signal from page \(page)")
                    }
                }
            }
        },
        SelftestCase(
            "fill-over-protection", on: .all,
            "COPY and CONTINUE replace the marker of a protected empty page, and keep the protection only if told",
            requires: [.missingFaults, .writeProtectFaults, .features(.writeProtectUnpopulated)],
            covers: [.continueProtected, .protectionSurvives, .zeropage]
        ) { context in
            for call in try FillCall.working(on: context.memory) {
                let kind: UserfaultFD.RegisterModes = call == .continue ? .minor : .missing
                for mode in call == .copy || call == .continue ? [0, 1 << 1] as [UInt64] : [0] {
                    let trial = try FillTrial(
                        call, context, modes: [kind, .writeProtect], features: .writeProtectUnpopulated)
                    defer { trial.end() }
                    let area = trial.area
                    try trial.uffd.writeProtect(area.pages(1..<3), .protect)
                    try area.expectProtected([1, 2], "before \(call)")
                    guard replaces(call, on: context.memory) else {
                        try expectEqual(trial.fill(1..<3), .failed(.fileExists), "\(call) over a protected empty page")
                        try area.expectProtected([1, 2], "after the refused \(call)")
                        continue
                    }
                    try expectEqual(trial.fill(0..<3, mode: mode), trial.done(3), "\(call) over protected empty pages")
                    try trial.expectFilled(0..<3)
                    try area.expectProtected(mode == 0 ? [] : [0, 1, 2], "after \(call) with mode \(mode)")
                    guard mode == 0 else { continue }
                    try expectEqual(Touch.store(area.address(1), 0xEE), .byte(0xEE), "a write to page 1")
                    try trial.uffd.expectNoMessage("the protection is gone")
                }
            }
        },
        SelftestCase(
            "fill-over-guard", on: .smallPages,
            "a guard page is no missing page: fills are refused and leave nothing behind, and accesses make no message",
            requires: [.missingFaults], covers: [.guardRegions, .failedContinue]
        ) { context in
            for call in try FillCall.working(on: context.memory) {
                let trial = try FillTrial(call, context)
                defer { trial.end() }
                let area = trial.area
                let blocks = try area.blocks()
                try area.guardPage(2)
                try expectEqual(Touch.load(area.address(2)).signal, SIGSEGV, "signal from the guard page")
                try trial.uffd.expectNoMessage("a guard page is no missing page")

                let result = trial.fill(2..<3)
                // Kernels before 6.19, which have no RWP either, replaced guards like other markers.
                let isOld = !trial.uffd.supportedFeatures.contains(.readWriteProtect)
                let older: [RawAnswer] = isOld && replaces(call, on: context.memory) ? [trial.done(1)] : []
                try expectOne(of: [.failed(.fileExists)] + older, result, "\(call) onto a guard page")
                guard result == .failed(.fileExists) else {
                    context.record("\(call) replaces guard pages on this kernel")
                    try trial.expectFilled(2..<3)
                    continue
                }
                try expectEqual(area.blocks(), blocks, "st_blocks after the refused \(call)")
                if area.file != nil && call != .continue { try area.expectStoredZeros(2) }
                try expectEqual(Touch.load(area.address(2)).signal, SIGSEGV, "signal from the guard page")
                try expectEqual(trial.fill(1..<4), .partial(area.pageSize.bytes), "\(call) up to the guard page")
                try area.view.advise(.guardRemove, area.page(2))
                let touch = try trial.blockedReader(2)
                try expectEqual(trial.fill(2..<4), trial.done(2), "\(call) once the guard is gone")
                try trial.finish(touch, page: 2)
                try trial.expectFilled(1..<4)
            }
        },
    ]

    /// Whether a call replaces markers: ZEROPAGE does where it makes a page of a file.
    private static func replaces(_ call: FillCall, on memory: MemoryType) -> Bool {
        switch call {
        case .copy, .continue: true
        case .zeropage: !memory.isPrivate
        default: false
        }
    }
}
