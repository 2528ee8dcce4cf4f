import CSelftestSupport
import Glibc
import UserfaultFD

/// The SIGBUS feature: no messages at all, the thread that faults gets the signal.
enum SigbusCases: CaseTheme {
    static let cases = [
        SelftestCase(
            "sigbus", on: .all,
            "a touch of a missing page is SIGBUS and no message, once for each page until it is filled; in a child too",
            requires: [.root, .missingFaults, .features([.sigbus, .eventFork])],
            covers: ["A.89", "A.90", "A.91", "A.92", "A.93"]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: [.sigbus, .eventFork])
            try uffd.register(area.range, modes: .missing)
            for page in 0..<2 {
                try expectSigbus(
                    Touch.load(area.address(page)), at: area.address(page), "a read of missing page \(page)")
                try expectSigbus(Touch.store(area.address(page) + 8, 1), at: area.address(page) + 8, "a write to it")
                try uffd.copy(from: area.source(page..<page + 1), to: area.page(page))
                try area.expectView(page, "page \(page) once it is filled")
                try expectEqual(Touch.store(area.address(page) + 8, 1), .byte(1), "a write to it once it is filled")
            }
            try uffd.expectNoMessage("there are signals in the place of messages")
            try uffd.expectWaiters(total: 0)
            try expectChild(area, uffd, signals: 2..<4)
        },
        SelftestCase(
            "sigbus-wp", on: .all,
            "a write to a protected page is SIGBUS and no message, and changes nothing until the protection is removed",
            requires: [.root, .missingFaults, .writeProtectFaults, .features([.sigbus, .eventFork])],
            covers: ["A.94", "A.95", "A.96", "A.97", "A.98"]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: [.sigbus, .eventFork])
            try uffd.register(area.range, modes: [.missing, .writeProtect])
            for page in 0..<2 {
                try expectSigbus(
                    Touch.load(area.address(page)), at: area.address(page), "a read of missing page \(page)")
                try uffd.copy(from: area.source(page..<page + 1), to: area.page(page), options: .writeProtect)
                try area.expectView(page, "page \(page) once it is filled")
                try expectSigbus(
                    Touch.store(area.address(page), 1), at: area.address(page), "a write to protected page \(page)")
                try area.expectView(page, "page \(page) after the write that was refused")
                try uffd.writeProtect(area.page(page), .unprotect)
                try expectEqual(Touch.store(area.address(page), 1), .byte(1), "a write once it is not protected")
            }
            try uffd.expectNoMessage("there are signals in the place of messages")
            try expectChild(area, uffd, signals: 2..<4)
        },
        SelftestCase(
            "sigbus-minor", on: .pageCache,
            "a touch of a page that only the file has is SIGBUS and no message where minor faults are registered",
            requires: [.minorFaults, .features(.sigbus)]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .sigbus)
            try uffd.register(area.range, modes: .minor)
            try area.fillFile()
            try expectSigbus(Touch.load(area.address(1)), at: area.address(1), "a read")
            try expectSigbus(Touch.store(area.address(1), 1), at: area.address(1), "a write")
            try uffd.expectNoMessage("there are signals in the place of messages")
            try uffd.continue(area.page(1))
            try area.expectView(1)
            try area.expectFile(1)
        },
    ]

    /// The signal of the feature: the address is the one that was touched, and no memory is called broken.
    private static func expectSigbus(
        _ outcome: Touch.Outcome, at address: UInt, _ what: String, file: String = #fileID, line: Int = #line
    ) throws {
        guard case .signal(let fault) = outcome, fault.signal == SIGBUS else {
            throw CaseFailure(expected: "\(what): SIGBUS", seen: "\(outcome)", file: file, line: line)
        }
        try expectEqual(fault.code, Int32(BUS_ADRERR), "si_code of \(what)", file: file, line: line)
        try expectEqual(UInt(fault.address), address, "si_addr of \(what)", file: file, line: line)
    }

    /// A child has the registration and the feature: missing pages are SIGBUS, each time, and what is there is read.
    private static func expectChild(_ area: Area, _ uffd: borrowing UserfaultFD, signals: Range<Int>) throws {
        let steps = signals.flatMap { [Child.Step.load(area.address($0)), .load(area.address($0))] }
        let fork = try BackgroundCall { try Child([.load(area.address(0) + 16)] + steps) }
        let childUffd = try uffd.expectFork()
        let results = try fork.finish().finish()
        let byte = Int64(truncatingIfNeeded: Pattern.word(seed: 0, page: 0, index: 2) & 0xFF)
        try expectEqual(results, [byte] + steps.map { _ in -Int64(SIGBUS) }, "results of the child's reads")
        try childUffd.expectNoMessage("the child gets signals too")
    }
}
