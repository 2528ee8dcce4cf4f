import CUserfaultFD
import SystemPackage
import UserfaultFD

/// SET_MODE: what it refuses, and what turning RWP_ASYNC on and off does to those who wait.
enum SetModeCases: CaseTheme {
    private static let async = UserfaultFD.Features.readWriteProtectAsync.rawValue
    private static let both: UserfaultFD.Features = [.readWriteProtect, .readWriteProtectAsync]

    static let cases: [SelftestCase] = [
        SelftestCase(
            "set-mode-errors",
            "SET_MODE refuses overlaps, other features and RWP_ASYNC without RWP, and changes nothing then",
            requires: [.features(both)], covers: [.readWriteProtect]
        ) { _ in
            let uffd = try UserfaultFD(features: both)
            let plain = try UserfaultFD()
            let sync = try UserfaultFD(features: .readWriteProtect)
            let refused: [(UInt64, UInt64)] =
                [(async, async), (async | 1 << 60, 0), (0, 1 << 60), (0, async | 1)]
                + (0..<18).map { (1 << $0, 0) } + (0..<18).map { (0, 1 << $0) }
            for (enable, disable) in refused {
                try expectErrno(
                    set(uffd, enable, disable), .invalidArgument,
                    "enabling 0x\(String(enable, radix: 16)), disabling 0x\(String(disable, radix: 16))")
                try expectEqual(try uffd.status().features, both, "features in fdinfo after a refusal")
            }
            try expectErrno(set(plain, async, 0), .invalidArgument, "enabling RWP_ASYNC without RWP")
            try expectEqual(try plain.status().features, [], "features in fdinfo after a refusal")
            for pointer in BadPointer.all() {
                try expectErrno(uffd.rawIoctl(CUFFD_IOC_SET_MODE, pointer), .badAddress, "an unreadable argument")
            }
            // Nothing asked for, and what is so already.
            for (enable, disable, features) in [
                (0, 0, both), (async, 0, both), (0, async, .readWriteProtect),
                (0, async, .readWriteProtect), (async, 0, both),
            ] as [(UInt64, UInt64, UserfaultFD.Features)] {
                try expectErrno(set(uffd, enable, disable), nil, "SET_MODE")
                try expectEqual(try uffd.status().features, features, "features in fdinfo")
            }
            try expectErrno(set(sync, async, 0), nil, "enabling RWP_ASYNC where RWP alone was negotiated")
            try expectErrno(set(plain, 0, async), nil, "disabling what was never on")
        },
        SelftestCase(
            "set-mode-wakes", on: .all,
            "enabling RWP_ASYNC lets go of all who wait for protected pages; disabling it wakes nobody",
            requires: [.features(both)], covers: [.readWriteProtect]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            area.fillView()
            try uffd.register(area.range, modes: .readWriteProtect)
            try uffd.rwProtect(area.range, .protect)
            let touches = try [0, 1, 3].map { page in
                let touch = try Touch.read(area.address(page))
                try uffd.expectFault(at: area.address(page), .readWriteProtect)
                try touch.thread.waitAsleep()
                return touch
            }
            // One more whose message is not read.
            let unread = try Touch.write(area.address(2), 7)
            try uffd.waitBlocked(4)
            try unread.thread.waitAsleep()
            try uffd.setMode(disable: .readWriteProtectAsync)
            for touch in touches + [unread] { try touch.thread.expectStillAsleep("nothing was enabled") }
            try uffd.setMode(enable: .readWriteProtectAsync)
            for (touch, page) in zip(touches, [0, 1, 3]) { try touch.finish(with: Pattern.byte(page: page)) }
            try unread.finish(with: 7)
            try area.expectProtected([], "after all have gone on")
            try uffd.expectNoMessage("whoever waited has gone on")
            try uffd.expectWaiters(pending: 0, total: 0)
        },
        SelftestCase(
            "set-mode-other-faults", on: .all,
            "RWP_ASYNC turned on leaves missing faults to be handled as ever",
            requires: [.features(both), .missingFaults], covers: [.readWriteProtect]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered([.missing, .readWriteProtect], features: .readWriteProtect)
            let touch = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), [])
            try touch.thread.waitAsleep()
            // Woken with all the others, it finds nothing and faults anew.
            try uffd.setMode(enable: .readWriteProtectAsync)
            try uffd.expectFault(at: area.address(1), [])
            try uffd.copy(from: area.source(1..<2), to: area.page(1))
            try touch.finish(with: Pattern.byte(page: 1))
            try uffd.rwProtect(area.range, .protect)
            try area.expectView(1)
            try uffd.expectNoMessage("asynchronous faults make none")
        },
    ]

    private static func set(_ uffd: borrowing UserfaultFD, _ enable: UInt64, _ disable: UInt64) -> Int32 {
        uffd.withUnsafeDescriptor { -cuffd_set_mode($0.rawValue, enable, disable) }
    }
}
