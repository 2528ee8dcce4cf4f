import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultFD

/// Faults of the kernel: system calls that touch memory which is not there, or protected.
enum KernelFaultCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "kernel-faults", on: .eachKind,
            "a system call that touches a page waits until its fault is resolved and then does all of its work, if it can wait",
            requires: [.missingFaults, .kernelFaults], covers: [.kernelFaults, .remoteAccess, .continueKernelAccess]
        ) { context in
            try forEachAccess(context, features: [], handlesKernel: true) { kind, access, area, uffd in
                let offset = area.address(1) + PageFault.Kind.offset
                let call = try BackgroundCall { access.perform(offset, count: 64) }
                if access.isOfMemoryFile {
                    // The kernel may not drop its locks there, and so cannot wait.
                    try expectErrno(Int32(-call.finish("it does not wait").answer), .ioError, access.rawValue)
                    return try uffd.expectNoMessage("an access that cannot wait is not reported")
                }
                let flags = kind.flags.union(access.isStore ? .write : [])
                try uffd.expectFault(at: area.address(1), flags)
                try call.thread.waitAsleep()
                try call.thread.expectStillAsleep("\(access.rawValue) waits for its \(kind) fault")
                try kind.resolve(area, 1, with: uffd)
                let byte = access.isStore ? 0xEE : byteOfPattern
                try expectEqual(
                    call.finish("\(access.rawValue) returns after its \(kind) fault"),
                    KernelAccess.Outcome(answer: 64, byte: byte), "\(access.rawValue), \(kind) fault")
                try expectEqual(Touch.load(offset), .byte(byte), "what \(access.rawValue) left in memory")
                try uffd.expectNoMessage("the fault is resolved")
            }
        },
        SelftestCase(
            "kernel-faults-user-mode-only", on: .eachKind,
            "with UFFD_USER_MODE_ONLY such a system call fails with EFAULT, without a message and without effect",
            requires: [.missingFaults], covers: [.kernelFaults]
        ) { context in
            guard try !UserfaultFD().handlesKernelFaults else {
                try context.skip(kernel: "this kernel has no UFFD_USER_MODE_ONLY")
            }
            try refuses(context, features: [])
        },
        SelftestCase(
            "kernel-faults-sigbus", on: .eachKind,
            "with the feature SIGBUS such a system call fails with EFAULT and user code gets SIGBUS, without a message",
            requires: [.missingFaults, .features(.sigbus)], covers: [.kernelFaults]
        ) { context in
            try refuses(context, features: .sigbus)
            for kind in PageFault.Kind.lawful(on: context.memory, try UserfaultFD().supportedFeatures) {
                let area = try Area(context, pages: 2)
                let uffd = try UserfaultFD(features: kind.features.union(.sigbus))
                try kind.arm(area, 0..<2, with: uffd)
                let outcome = try kind.touch(area, 1).finish("an access raises SIGBUS and does not wait, \(kind) fault")
                try expectEqual(
                    outcome, .signal(css_fault(signal: SIGBUS, code: Int32(BUS_ADRERR), address: 0, address_lsb: 0)),
                    "outcome of an access, \(kind) fault")
                try uffd.expectNoMessage("the signal tells")
                try kind.resolve(area, 1, with: uffd)
                try expectEqual(
                    kind.touch(area, 1).finish(), .byte(kind.byte(1)), "the access once the \(kind) fault is resolved")
            }
        },
        SelftestCase(
            "kernel-faults-short", on: [.anon, .shmem],
            "a system call that meets a missing page on its way, with UFFD_USER_MODE_ONLY, answers what it did before",
            requires: [.missingFaults], covers: [.kernelFaults]
        ) { context in
            let uffd = try UserfaultFD()
            guard !uffd.handlesKernelFaults else { try context.skip(kernel: "this kernel has no UFFD_USER_MODE_ONLY") }
            let area = try Area(context)
            try uffd.register(area.range, modes: .missing)
            let page = area.pageSize.bytes
            try uffd.copy(from: area.source(1..<2), to: area.page(1))
            let first = UInt8(truncatingIfNeeded: Pattern.word(seed: 0, page: 1, index: 0))
            for access in [KernelAccess.write, .processRead, .read, .processWrite] {
                guard access.isPossible else {
                    context.record("not possible here: \(access.rawValue)")
                    continue
                }
                let outcome = access.perform(area.address(1), count: 2 * page, byte: 0xEE)
                try expectEqual(outcome.answer, page, "bytes of \(access.rawValue) up to the missing page")
                if !access.isStore { try expectEqual(outcome.byte, first, "the first byte by \(access.rawValue)") }
            }
            try expectEqual(Touch.load(area.address(1)), .byte(0xEE), "what was stored up to the missing page")
            try expect(!PagemapEntry(of: area.address(2)).isPresent, "the missing page is missing still")
            try uffd.expectNoMessage("faults of the kernel are not reported")
        },
        SelftestCase(
            "kernel-faults-forced", on: [.anon, .shmemPrivate],
            "a write of /proc/PID/mem, which read-only memory takes, is no way around write-protection",
            requires: [.writeProtectFaults], covers: [.protectionSurvives, .remoteAccess]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.page(1), .protect)
            try area.view.protect(.read)
            // By a tracer, which is who may do so.
            let force = { (page: Int) in
                Int(try Child([.access(.memoryWrite, area.address(page), count: 8)]).finish()[0])
            }
            let answer = try force(2)
            let error = Errno(rawValue: Int32(clamping: -answer))
            switch error {
            // Only since then it can be built so.
            case .ioError where KernelRelease.running >= KernelRelease(6, 12):
                try context.skip(kernel: "this kernel does not force writes to read-only memory")
            case .notPermitted, .permissionDenied, .readOnlyFileSystem, .noSuchFileOrDirectory:
                try context.skip("a tracer may not write to /proc/PID/mem (\(error))")
            default: try expectEqual(answer, 8, "bytes of a forced write to read-only memory")
            }
            try expectEqual(Touch.load(area.address(2)), .byte(0xEE), "what a forced write has written")
            let before = try PagemapEntry(of: area.address(1))
            try expectErrno(Int32(clamping: -force(1)), .ioError, "a forced write to a protected page")
            try area.expectView(1)
            try expectEqual(PagemapEntry(of: area.address(1)), before, "the page's entry after the refused write")
            try uffd.writeProtect(area.page(1), .unprotect)
            try expectEqual(force(1), 8, "bytes of a forced write once the protection is lifted")
        },
    ]

    /// The byte of page 1's pattern where the accesses are.
    private static let byteOfPattern = PageFault.Kind.missing.byte(1)

    private static func forEachAccess(
        _ context: CaseContext, features: UserfaultFD.Features, handlesKernel: Bool,
        _ body: (PageFault.Kind, KernelAccess, Area, borrowing UserfaultFD) throws -> Void
    ) throws {
        let possible = KernelAccess.allCases.filter(\.isPossible)
        let others = KernelAccess.allCases.filter { !possible.contains($0) }
        if !others.isEmpty { context.record("not possible here: \(others.map(\.rawValue).joined(separator: ", "))") }
        for kind in PageFault.Kind.lawful(on: context.memory, try UserfaultFD().supportedFeatures) {
            let area = try Area(context, pages: 3)
            for access in possible where kind != .writeProtect || access.isStore {
                try area.empty()
                let uffd = try UserfaultFD(
                    features: kind.features.union(features),
                    options: .init(faults: handlesKernel ? .userAndKernelMode : .userMode))
                try kind.arm(area, 0..<3, with: uffd)
                try body(kind, access, area, uffd)
            }
        }
    }

    private static func refuses(_ context: CaseContext, features: UserfaultFD.Features) throws {
        try forEachAccess(context, features: features, handlesKernel: false) { kind, access, area, uffd in
            let offset = area.address(1) + PageFault.Kind.offset
            let before = try PagemapEntry(of: area.address(1))
            let call = try BackgroundCall { access.perform(offset, count: 64) }
            let outcome = try call.finish("\(access.rawValue) does not wait for a \(kind) fault")
            try expectErrno(
                Int32(clamping: -outcome.answer), access.isOfMemoryFile ? .ioError : .badAddress,
                "\(access.rawValue) with a \(kind) fault")
            try uffd.expectNoMessage("faults of the kernel are not reported")
            try uffd.expectWaiters(pending: 0, total: 0, "after \(access.rawValue)")
            try expectEqual(PagemapEntry(of: area.address(1)), before, "the page's entry after \(access.rawValue)")
        }
    }
}
