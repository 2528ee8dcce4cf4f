import Glibc
import SystemPackage
import UserfaultFD

/// Calls that bring memory in before anybody touches it: they wait for missing pages, like any access by the kernel.
enum PopulateCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "populate-waits", on: .eachKind,
            "MADV_POPULATE_READ and MADV_POPULATE_WRITE wait for each missing page of their range",
            requires: [.missingFaults, .kernelFaults], covers: [.holes]
        ) { context in
            for (advice, flags) in [(Advice.populateRead, PageFault.Flags()), (.populateWrite, .write)] {
                try waits(context, flags) { RawMemory.advise($0, advice) }
            }
        },
        SelftestCase(
            "mlock-waits", on: .eachKind,
            "mlock waits for each missing page of its range",
            requires: [.lockedPages(2), .missingFaults, .kernelFaults], covers: [.holes]
        ) { context in
            // What is private and writable is brought in as for a write, so that no copy is due later.
            try waits(context, context.memory.isPrivate ? .write : []) { RawMemory.lock($0) }
        },
        SelftestCase(
            "populate-user-mode-only", on: .eachKind,
            "where only user faults are handled, populating a missing page fails, makes no message and fills nothing",
            requires: [.missingFaults], covers: [.holes]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            guard !uffd.handlesKernelFaults else { try context.skip(kernel: "this kernel has no UFFD_USER_MODE_ONLY") }
            try uffd.register(area.range, modes: .missing)
            for advice in [Advice.populateRead, .populateWrite] {
                let call = try BackgroundCall {
                    RawMemory.advise(area.range, advice)
                }
                let answer = try call.finish("populating does not wait")
                if answer == -Errno.invalidArgument.rawValue {
                    try context.skip(kernel: "no MADV_POPULATE before Linux 5.14")
                }
                try expectErrno(-answer, .badAddress, "populating missing memory")
                try area.expectUnmapped(0..<4, "nobody has filled it")
                try uffd.expectNoMessage("faults of the kernel are not reported")
            }
        },
    ]

    private static func waits(
        _ context: CaseContext, _ flags: PageFault.Flags, _ populate: @escaping @Sendable (AddressRange) -> CInt
    ) throws {
        let area = try Area(context, offset: 3)
        let uffd = try area.registered(.missing, options: .init(faults: .userAndKernelMode))
        let range = area.pages(1..<3)
        let call = try BackgroundCall { populate(range) }
        try Waiting.until("the call waits or returns") { try call.isFinished || uffd.status().total > 0 }
        if call.isFinished {
            let errno = try Errno(rawValue: -call.finish())
            try expectEqual(errno, .invalidArgument, "errno of a call that did not wait")
            try context.skip(kernel: "this kernel has no such call")
        }
        for page in 1..<3 {
            try uffd.expectFault(at: area.address(page), flags)
            try call.waitBlocked()
            try area.expectUnmapped(page..<4, "nobody has filled it")
            let source = try area.source(page..<page + 1)
            try uffd.raw(.copy, area.page(page), from: source).expectDone(area.pageSize.bytes)
        }
        try expectEqual(call.finish(), 0, "answer of the call")
        for page in 1..<3 { try area.expectView(page) }
        for page in [0, 3] { try area.expectUnmapped(page..<page + 1) }
        try uffd.expectNoMessage("two pages were populated")
        try area.giveBack()
    }
}

extension Area {
    /// Gives locked or other pages of the view back, for what comes next in the process.
    fileprivate func giveBack() throws {
        _ = RawMemory.unlock(range)
        try file?.resize(to: 0)
    }
}
