import Glibc
import SystemPackage
import Synchronization
import UserfaultFD

/// The SIGBUS feature: faults that are signals, not messages.
enum SigbusCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "sigbus", on: .all,
            "with the SIGBUS feature each missing page is one signal and no message, in a forked child too",
            requires: [.root, .missingFaults, .features([.sigbus, .eventFork])],
            covers: [.upstream]
        ) { context in
            try faults(context, protects: false)
        },
        SelftestCase(
            "sigbus-wp", on: .all,
            "with the SIGBUS feature a write to a protected page is one signal, and none once it is unprotected",
            requires: [.root, .missingFaults, .writeProtectFaults, .features([.sigbus, .eventFork])],
            covers: [.upstream]
        ) { context in
            try faults(context, protects: true)
        },
        SelftestCase(
            "sigbus-minor", on: .pageCache,
            "with the SIGBUS feature a minor fault is a signal, and none once the page is continued",
            requires: [.minorFaults, .features(.sigbus)], covers: [.continueResolves]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered(.minor, features: .sigbus)
            try area.fillFile()
            for page in 1..<3 {
                try expectEqual(Touch.load(area.address(page)).signal, SIGBUS, "signal from reading page \(page)")
                try expectEqual(Touch.store(area.address(page), 1).signal, SIGBUS, "signal from writing page \(page)")
                try uffd.raw(.continue, area.page(page)).expectDone(area.pageSize.bytes)
                try area.expectView(page)
            }
            try uffd.expectWaiters(pending: 0, total: 0)
            try uffd.expectNoMessage("faults are signals")
        },
        SelftestCase(
            "sigbus-kernel-access", on: .eachKind,
            "with the SIGBUS feature a system call that meets a missing page answers EFAULT and makes no message",
            requires: [.missingFaults, .kernelFaults, .features(.sigbus)], covers: [.kernelFaults]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered(.missing, features: .sigbus, options: .init(faults: .userAndKernelMode))
            let file = try Memfd(count: PageSize.base.bytes)
            let page = UnsafeMutableRawPointer(bitPattern: area.address(1))!
            let answers = file.withUnsafeDescriptor {
                [RawMemory.write($0.rawValue, from: page, 8, at: 0), RawMemory.read($0.rawValue, into: page, 8, at: 0)]
            }
            try expectEqual(answers, [-Int(EFAULT), -Int(EFAULT)], "answers of pwrite and pread")
            try uffd.expectNoMessage("faults are signals")
            try area.expectUnmapped(0..<4)
        },
    ]

    private static func faults(_ context: CaseContext, protects: Bool) throws {
        let area = try Area(context, offset: 3)
        let descriptor = Handler.Descriptor(try UserfaultFD(features: [.sigbus, .eventFork]))
        try descriptor.uffd.register(area.range, modes: protects ? [.missing, .writeProtect] : .missing)
        let source = try area.source(0..<2)
        for page in 0..<2 {
            try expectEqual(Touch.load(area.address(page)).signal, SIGBUS, "signal from reading page \(page)")
            let start = source.range.start + UInt(page * area.pageSize.bytes)
            try descriptor.uffd.raw(.copy, area.page(page), source: start, mode: protects ? 1 << 1 : 0)
                .expectDone(area.pageSize.bytes)
            try area.expectView(page)
            if protects {
                try expectEqual(Touch.store(area.address(page), 1).signal, SIGBUS, "signal from writing page \(page)")
                try area.expectView(page)
                try descriptor.uffd.writeProtect(area.page(page), .unprotect)
            }
            try expectEqual(Touch.store(area.address(page), 0xEE), .byte(0xEE), "a write to page \(page)")
        }
        try descriptor.uffd.expectNoMessage("faults are signals")

        // The child's pages are guarded like the parent's; its descriptor is kept, since closing it would end that.
        let children = Mutex<[Handler.Descriptor]>([])
        let handler = try Handler(
            descriptor,
            onEvent: { event in
                guard case .fork(let child) = consume event else {
                    throw CaseFailure(expected: "a fork event", seen: "another event")
                }
                let kept = Handler.Descriptor(child)
                children.withLock { $0.append(kept) }
            }, onFault: { _ in throw CaseFailure(expected: "signals, no messages", seen: "a page fault") })
        let child = try Child([.load(area.address(0)), .load(area.address(2)), .store(area.address(3), 1)])
        let bus = Int64(-SIGBUS)
        try expectEqual(child.finish(), [0xEE, bus, bus], "what the child saw of a page and of two missing ones")
        try expectEqual(handler.stop(), .init(events: 1), "messages read")
        for kept in children.withLock({ $0 }) { try kept.uffd.expectNoMessage("faults are signals") }
    }
}
