import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultFD

/// UFFDIO_POISON: pages that raise SIGBUS, and how they become memory again.
enum PoisonCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "poison", on: .all,
            "of four missing pages the two that are poisoned raise SIGBUS, and the two that are copied are zeros",
            requires: [.missingFaults, .features(.poison)],
            covers: [.upstream]
        ) { context in
            let area = try Area(context, offset: 3)
            let descriptor = Handler.Descriptor(try UserfaultFD(features: .poison))
            let ioctls = try descriptor.uffd.register(area.range, modes: .missing)
            try expect(
                ioctls.isSuperset(of: [.copy, .poison]), "registration offers COPY and POISON", seen: "\(ioctls)")
            let zeros = try Mapping(anonymous: area.pageSize.bytes)
            let source = zeros.range.start
            let handler = try Handler(descriptor) { fault in
                try expectEqual(fault.flags, [], "flags of the fault")
                let index = Int(fault.address - area.range.start) / area.pageSize.bytes
                let call: FillCall = index.isMultiple(of: 2) ? .poison : .copy
                try expectEqual(
                    descriptor.uffd.raw(call, area.page(index), source: source), .done(area.pageSize.bytes), "\(call)")
            }
            for page in 0..<4 {
                let touch = try Touch.read(area.address(page))
                try expectEqual(
                    touch.finish().signal, page.isMultiple(of: 2) ? SIGBUS : nil, "signal from reading page \(page)")
                if !page.isMultiple(of: 2) { try area.expectZeroView(page) }
            }
            try expectEqual(handler.stop(), .init(missing: 4), "faults handled")
            try zeros.unmap()
        },
        SelftestCase(
            "poison-signal", on: .all,
            "every access to a poisoned page raises SIGBUS with the page's size, and no access beside it does",
            requires: [.missingFaults, .features(.poison)], covers: [.poison]
        ) { context in
            let trial = try FillTrial(.poison, context)
            let area = trial.area
            let source = try area.source(0..<4)
            for page in [0, 3] { try trial.uffd.copy(from: source.range.start, to: area.page(page)) }
            let blocked = try trial.blockedReader(1)
            try expectEqual(trial.fill(1..<3), trial.done(2), "POISON")
            let last = UInt(area.pageSize.bytes - 1)
            var outcomes = [try blocked.finish()]
            for page in 1..<3 {
                for offset in [0, 1, last / 2, last] {
                    outcomes.append(Touch.load(area.address(page) + offset))
                    outcomes.append(Touch.store(area.address(page) + offset, 0xEE))
                }
            }
            for outcome in outcomes {
                guard case .signal(let fault) = outcome, fault.signal == SIGBUS else {
                    throw CaseFailure(expected: "SIGBUS from a poisoned page", seen: "\(outcome)")
                }
                // A kernel without CONFIG_MEMORY_FAILURE can only say that the address is bad.
                let knowsFailures = ProcFile.number("HardwareCorrupted", in: "/proc/meminfo") != nil
                try expectEqual(fault.code, knowsFailures ? Self.memoryError : Self.badAddress, "si_code of the SIGBUS")
                if fault.code == Self.memoryError {
                    try expectEqual(Int(fault.address_lsb), area.pageSize.log2, "si_addr_lsb of the SIGBUS")
                }
                try expect(
                    area.pages(1..<3).contains(fault.address), "si_addr lies in the page", seen: "\(fault.address)")
            }
            for page in [0, 3] {
                try expectEqual(
                    Touch.load(area.address(page) + last).signal, nil, "signal from page \(page), which is not poisoned"
                )
            }
            try trial.uffd.expectNoMessage("a poisoned page is no missing page")
        },
        SelftestCase(
            "poison-kernel-access", on: .all,
            "a system call that is given a poisoned page answers EFAULT and makes no message",
            requires: [.missingFaults, .features(.poison)], covers: [.poison]
        ) { context in
            let trial = try FillTrial(.poison, context)
            try expectEqual(trial.fill(1..<2), trial.done(1), "POISON")
            let address = UnsafeMutableRawPointer(bitPattern: trial.area.address(1))!
            let file = try Memfd(count: PageSize.base.bytes)
            let answers = file.withUnsafeDescriptor {
                [
                    RawMemory.write($0.rawValue, from: address, 8, at: 0),
                    RawMemory.read($0.rawValue, into: address, 8, at: 0),
                ]
            }
            try expectEqual(answers, [-Int(EFAULT), -Int(EFAULT)], "answers of pwrite from and pread into the page")
            var bytes = [UInt8](repeating: 0, count: 8)
            let remote = try ProcessMemory.read(trial.area.address(1), into: &bytes)
            try expectOne(of: [-Int(EFAULT), -133], remote, "answer of process_vm_readv")  // 133: EHWPOISON
            try trial.uffd.expectNoMessage("a poisoned page is no missing page")
            try trial.expectFilled(1..<2)
        },
        SelftestCase(
            "poison-exists", on: .all,
            "POISON where anything is mapped answers EEXIST and leaves it alone; a poisoned page stays poisoned",
            requires: [.missingFaults, .features(.poison)], covers: [.poison]
        ) { context in
            let trial = try FillTrial(.poison, context)
            let area = trial.area
            let source = try area.source(1..<2)
            try trial.uffd.copy(from: source.range.start, to: area.page(1))
            let before = try PageState(area, page: 1, aliasIsMapped: !context.memory.isPrivate)
            for pages in [1..<2, 1..<3] { try expectEqual(trial.fill(pages), .failed(.fileExists), "POISON of a page") }
            try PageState(area, page: 1, aliasIsMapped: !context.memory.isPrivate)
                .expectUnchanged(since: before, by: "the refused POISON")
            try area.expectUnmapped(2..<3, "POISON stopped before it")

            try expectEqual(trial.fill(2..<3), trial.done(1), "POISON")
            for _ in 0..<2 { try expectEqual(trial.fill(2..<3), .failed(.fileExists), "POISON repeated") }
            if !context.memory.isHugetlb {
                try expectEqual(trial.uffd.raw(.zeropage, area.page(3)), trial.done(1), "ZEROPAGE")
                try expectEqual(trial.fill(3..<4), .failed(.fileExists), "POISON of a page of zeros")
                try area.expectZeroView(3)
            }
            try trial.expectFilled(2..<3)
            try area.expectView(1)
        },
        SelftestCase(
            "poison-mapping-only", on: .pageCache,
            "POISON is of the mapping: the file's page, other mappings and the accounts do not change",
            requires: [.missingFaults, .features(.poison)], covers: [.poison]
        ) { context in
            let trial = try FillTrial(.poison, context)
            let area = trial.area
            try area.fillFile(1)
            try area.fillFile(2)
            let blocks = try area.blocks()
            let other = try Mapping(area.file!, offset: area.fileOffset, sharing: .private, options: .noReserve)
            try expectEqual(trial.fill(0..<3), trial.done(3), "POISON of a hole and two pages that the file has")
            try trial.expectFilled(0..<3)
            for page in 1..<3 {
                try area.expectFile(page)
                try area.expectStored(page)
                try Pattern.expect(
                    seed: 0, page: page, at: other.page(page).start, count: area.pageSize.bytes, "another mapping")
            }
            try area.expectStoredZeros(0)
            try expectEqual(area.blocks(), blocks, "st_blocks after POISON")
            if !context.memory.isHugetlb {
                try expectEqual(
                    try MappingAccount(holding: area.range.start)["Rss"], 0, "Rss of the view in smaps, KiB")
            }
            try area.fillFile(1, seed: 3)
            try area.expectFile(1, seed: 3)
            try other.unmap()
        },
        SelftestCase(
            "poison-heals", on: .all,
            "MADV_DONTNEED and COPY and CONTINUE make a poisoned page memory again; protection changes do not",
            requires: [.missingFaults, .features(.poison)], covers: [.poison]
        ) { context in
            let trial = try FillTrial(.poison, context)
            let area = trial.area
            try expectEqual(trial.fill(0..<4), trial.done(4), "POISON")
            try area.view.protect(.read)
            try area.view.protect(.readWrite)
            try trial.expectFilled(0..<4)

            try area.zapView(area.page(0))
            let touch = try trial.blockedReader(0)
            let source = try area.source(0..<4)
            try trial.uffd.copy(from: source.range.start, to: area.page(0))
            try touch.finish()
            try area.expectView(0)
            try trial.expectFilled(1..<4)

            let bytes = UInt(area.pageSize.bytes)
            try expectEqual(
                trial.uffd.raw(.copy, area.page(1), source: source.range.start + bytes), trial.done(1),
                "COPY onto poison")
            try area.expectView(1)
            try expectEqual(Touch.store(area.address(1), 0xEE), .byte(0xEE), "a write to the healed page")
            if area.file != nil {
                try area.fillFile(2)
                try expectEqual(trial.uffd.raw(.continue, area.page(2)), trial.done(1), "CONTINUE onto poison")
                try area.expectView(2)
            }
            try trial.expectFilled(3..<4)
            try trial.uffd.unregister(area.range)
            try trial.expectFilled(3..<4)
            try area.zapView(area.page(3))
            try area.expectZeroView(3)
        },
        SelftestCase(
            "poison-fork", on: .all.filter(\.isPrivate),
            "a forked child of private memory inherits the poison, and not more than that",
            requires: [.missingFaults, .features(.poison)], covers: [.poison]
        ) { context in
            let trial = try FillTrial(.poison, context)
            let area = trial.area
            let source = try area.source(0..<2)
            try trial.uffd.copy(from: source.range.start, to: area.pages(0..<2))
            try expectEqual(trial.fill(2..<3), trial.done(1), "POISON")
            let child = try Child([
                .load(area.address(1)), .load(area.address(2)), .store(area.address(2), 1),
                .advise(area.page(2), .dontNeed), .load(area.address(2)),
            ])
            let results = try child.finish()
            let byte = Int64(UInt8(truncatingIfNeeded: Pattern.word(seed: 0, page: 1, index: 0)))
            let bus = Int64(SIGBUS)
            try expectEqual(
                results, [byte, -bus, -bus, 0, 0], "what the child saw of a page, poison, and healed poison")
            try trial.expectFilled(2..<3)
            try area.expectView(1)
        },
    ]

    /// `BUS_MCEERR_AR` and `BUS_ADRERR`.
    private static let memoryError: Int32 = 4
    private static let badAddress: Int32 = 2
}
