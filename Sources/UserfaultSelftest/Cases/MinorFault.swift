import SystemPackage
import UserfaultFD

/// Minor faults, and UFFDIO_CONTINUE resolving them.
enum MinorFaultCases: CaseTheme {
    static let cases = [
        SelftestCase(
            "minor-read-first", on: .allShmem,
            "a read of a page that only the file has makes one MINOR fault, and CONTINUE shows the file's bytes",
            requires: [.minorFaults], covers: ["3.4.A", "part5.1"]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            try uffd.register(area.range, modes: .minor)
            try area.fillFile()

            let touch = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), .minor)
            try area.fillFile(1, seed: 7)
            try expectEqual(uffd.continue(area.page(1)), area.pageSize.bytes, "bytes continued")
            try touch.finish()
            try uffd.expectNoMessage("one fault makes one message")
            try area.expectView(1, seed: 7, "what was stored through the alias before CONTINUE")
        },
        SelftestCase(
            "minor-write-first", on: .allShmem,
            "a write to a page that only the file has makes one MINOR|WRITE fault, also where it copies the page then",
            requires: [.minorFaults], covers: ["3.4.A", "3.4.H", "part5.1", "part5.3"]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            try uffd.register(area.range, modes: .minor)
            try area.fillFile()

            let touch = try Touch.write(area.address(1), 0xEE)
            try uffd.expectFault(at: area.address(1), [.minor, .write])
            try area.fillFile(1, seed: 7)
            try uffd.continue(area.page(1))
            try touch.finish(with: 0xEE)
            try uffd.expectNoMessage("one fault makes one message, also where the write makes a copy")

            try expectEqual(Touch.load(area.address(1)), .byte(0xEE), "the byte written, in the view")
            let inFile: UInt8 =
                context.memory.isPrivate ? Pattern.byte(seed: 7, page: 1) : 0xEE
            try expectEqual(Touch.load(area.aliasAddress(1)), .byte(inFile), "the same byte, in the file")
        },
    ]
}
