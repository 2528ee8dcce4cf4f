import SystemPackage
import UserfaultFD

/// Minor faults, and UFFDIO_CONTINUE resolving them.
enum MinorFaultCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "minor-read-first", on: .allShmem,
            "a read of a page that only the file has makes one MINOR fault, and CONTINUE shows the file's bytes",
            requires: [.minorFaults], covers: [.continueResolves, .privateContinue]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.minor)
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
            requires: [.minorFaults],
            covers: [.continueResolves, .continueWriteFirst, .privateContinue, .privateStores]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.minor)
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
        SelftestCase(
            "minor", on: .pageCache,
            "every page that only the file has makes one minor fault, and the reader sees what was stored before CONTINUE",
            requires: [.minorFaults], covers: [.upstream, .continueResolves, .continueExists, .privateContinue]
        ) { context in
            _ = try readThroughHandler(context, modes: .minor)
        },
        SelftestCase(
            "minor-wp", on: .pageCache,
            "minor faults are resolved with the pages write-protected, and the protection holds",
            requires: [.minorFaults, .writeProtectFaults, .features(.writeProtectUnpopulated)],
            covers: [.upstream, .continueProtected, .minorProtection]
        ) { context in
            let (area, descriptor) = try readThroughHandler(context, modes: [.minor, .writeProtect])
            try area.expectMapped(0..<area.pageCount, isFile: true, isProtected: true)
            let page = area.pageCount - 1
            let byte = Touch.load(area.address(page))
            let touch = try Touch.write(area.address(page), 0xEE)
            try descriptor.uffd.expectFault(at: area.address(page), [.write, .writeProtect])
            try touch.thread.waitAsleep()
            try expectEqual(Touch.load(area.address(page)), byte, "the byte before the protection is taken away")
            try descriptor.uffd.writeProtect(area.page(page), .unprotect)
            try touch.finish(with: 0xEE)
            try area.expectMapped(0..<page, isFile: true, isProtected: true)
            try descriptor.uffd.expectNoMessage("one protected page was written")
        },
        SelftestCase(
            "minor-collapse", on: [.shmem],
            "pages mapped by CONTINUE can be collapsed into huge pages, and are the same bytes after it",
            requires: [.minorFaults, .shmemHugePages], limit: .seconds(30), covers: [.upstream, .continueLeaksNothing]
        ) { context in
            let huge = PageSize.transparentHuge
            let area = try Area(context, pages: huge.bytes / PageSize.base.bytes, alignment: huge.bytes)
            let uffd = try area.registered(.minor)
            try area.fillFile()
            // Every page is continued, and refused once: one reference too many on any of them is in the way below.
            for page in 0..<area.pageCount {
                try uffd.raw(.continue, area.page(page)).expectDone(area.pageSize.bytes)
                try expectEqual(uffd.raw(.continue, area.page(page)), .failed(.fileExists), "CONTINUE repeated")
            }
            try area.collapseView(context)
            try expectEqual(
                MappingAccount(holding: area.range.start)["ShmemPmdMapped"], huge.bytes / 1024,
                "ShmemPmdMapped of the view in smaps, KiB")
            for page in 0..<area.pageCount {
                try area.expectView(page)
                try area.expectStored(page)
            }
            try uffd.expectNoMessage("every page is mapped")
        },
        SelftestCase(
            "minor-or-missing", on: .pageCache,
            "of memory registered for both, what the file has makes a MINOR fault, and a hole a missing one",
            requires: [.minorFaults, .missingFaults], covers: [.continueResolves, .continueErrors]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered([.minor, .missing])
            try area.fillFile(1)
            let minor = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), .minor)
            let missing = try Touch.write(area.address(2), 0xEE)
            try uffd.expectFault(at: area.address(2), .write)
            try uffd.continue(area.page(1))
            let source = try area.source(2..<3)
            try uffd.copy(from: source.range.start, to: area.page(2))
            try minor.finish()
            try missing.finish(with: 0xEE)
            try area.expectView(1)
            try uffd.expectNoMessage("each fault makes one message")

            // Zapped, a shared page is the file's and its fault a minor one; a private copy is gone.
            try area.zapView()
            let again = try Touch.read(area.address(2))
            try uffd.expectFault(at: area.address(2), context.memory.isPrivate ? [] : .minor)
            try uffd.raw(context.memory.isPrivate ? .copy : .continue, area.page(2), source: source.range.start)
                .expectDone(area.pageSize.bytes)
            try again.finish()
            try uffd.expectNoMessage("each fault makes one message")
        },
        SelftestCase(
            "minor-hole-alone", on: .pageCache,
            "of memory registered for minor faults alone a hole is filled by the kernel, without a message",
            requires: [.minorFaults], covers: [.continueResolves]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered(.minor)
            try expectEqual(Touch.load(area.address(1)), .byte(0), "a byte of a hole")
            try expectEqual(Touch.store(area.address(2), 0xEE), .byte(0xEE), "a write to a hole")
            try uffd.expectNoMessage("a hole is no minor fault")
            try area.expectUnmapped(3..<4, "nobody touched it")
        },
    ]

    /// Has every byte of every page read while a handler inverts each page before it is continued, twice.
    private static func readThroughHandler(
        _ context: CaseContext, modes: UserfaultFD.RegisterModes
    ) throws -> (Area, Handler.Descriptor) {
        let area = try Area(context, pages: context.memory.isHugetlb ? 4 : 64, offset: 3)
        let descriptor = Handler.Descriptor(try UserfaultFD())
        try descriptor.uffd.register(area.range, modes: modes)
        try area.fillFile(seed: 1)
        let mode: UInt64 = modes.contains(.writeProtect) ? 1 << 1 : 0
        let handler = try Handler(descriptor) { fault in
            let page = area.pageSize.pages(in: Int(fault.address - area.range.start))
            try expectEqual(fault.flags, .minor, "flags of the fault")
            try expectEqual(fault.address, area.address(page), "address of the fault, a page's start")
            try area.fillFile(page, seed: 2)
            try descriptor.uffd.raw(.continue, area.page(page), mode: mode).expectDone(area.pageSize.bytes)
            try expectEqual(
                descriptor.uffd.raw(.continue, area.page(page), mode: mode), .failed(.fileExists), "CONTINUE repeated")
        }
        let reader = try BackgroundCall {
            for page in 0..<area.pageCount { try area.expectView(page, seed: 2) }
        }
        try reader.finish("the reader sees every page")
        try expectEqual(handler.stop(), .init(minor: area.pageCount), "faults handled")
        for page in 0..<area.pageCount { try area.expectStored(page, seed: 2) }
        return (area, descriptor)
    }
}
