import CUserfaultFD
import Glibc
import SystemPackage
import UserfaultFD

/// A userfaultfd that has outlived the process whose memory it guards.
enum ProcessGoneCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "process-exited", "when the process has exited, each call says so and the descriptor is silent",
            covers: [.polling, .endedProcess]
        ) { context in
            let target = try TargetProcess(then: [])
            try target.child.resume()
            try target.child.finish()
            try target.uffd.expectProcessGone(target.page(1))
        },
        SelftestCase(
            "process-exited-after-calls", "no call, done or refused, holds on to the memory of a process that exits",
            requires: [.descriptors(200)], covers: [.endedProcess]
        ) { _ in
            let source = try Mapping(anonymous: PageSize.base.bytes).release()
            let nowhere = try Mapping(anonymous: PageSize.base.bytes, protection: .none).release()
            let features = try UserfaultFD().supportedFeatures
            func fill(_ call: FillCall, _ target: TargetProcess, from start: UInt, mode: UInt64 = 0) {
                _ = target.uffd.raw(call, target.page(0), source: start, mode: mode)
            }
            var calls: [(name: String, make: (TargetProcess) throws -> Void)] = []
            for call in try FillCall.offered() + (features.contains(.move) ? [.move] : []) {
                calls.append(
                    ("\(call), done and then refused", { for _ in 0..<2 { fill(call, $0, from: source.start) } }))
                calls.append(("\(call) in an unknown mode", { fill(call, $0, from: source.start, mode: 1 << 40) }))
                calls.append(
                    (
                        "\(call) of memory not registered",
                        { target in
                            try target.uffd.unregister(target.memory)
                            fill(call, target, from: source.start)
                        }
                    ))
            }
            calls.append(("COPY from nowhere", { fill(.copy, $0, from: nowhere.start) }))
            calls.append(
                (
                    "UFFDIO_REGISTER",
                    { target in
                        _ = target.uffd.rawRegister(target.memory, .missing)
                        _ = target.uffd.rawRegister(target.memory, [])
                        _ = target.uffd.rawRegister(target.memory, .minor)
                    }
                ))
            calls.append(
                (
                    "UFFDIO_UNREGISTER",
                    { target in
                        for _ in 0..<2 {
                            _ = target.uffd.rawUnregister(start: target.memory.start, count: UInt(PageSize.base.bytes))
                        }
                        _ = target.uffd.rawUnregister(start: nowhere.start, count: UInt(PageSize.base.bytes))
                    }
                ))
            calls.append(("UFFDIO_WAKE", { try $0.uffd.wake($0.memory) }))
            for (call, modes) in [
                (ProtectCall.writeProtect, UserfaultFD.RegisterModes.writeProtect),
                (.readWriteProtect, .readWriteProtect),
            ] {
                calls.append(
                    (
                        "\(call)",
                        { target in
                            for _ in 0..<2 {
                                for mode in [1, 0] as [UInt64] { _ = target.uffd.raw(call, target.memory, mode: mode) }
                                _ = target.uffd.rawRegister(target.memory, modes)
                            }
                        }
                    ))
            }
            calls.append(
                (
                    "SET_MODE",
                    { target in
                        for bit in [0, UserfaultFD.Features.readWriteProtectAsync.rawValue, 1] {
                            var modes = cuffd_set_mode(enable: bit, disable: 0)
                            _ = target.uffd.rawIoctl(CUFFD_IOC_SET_MODE, &modes)
                        }
                    }
                ))
            for (name, make) in calls {
                let target = try TargetProcess(
                    features: features.intersection([.readWriteProtect, .readWriteProtectAsync])
                ) { _ in [] }
                try make(target)
                try target.child.resume()
                try target.child.finish()
                try expectEqual(
                    target.uffd.raw(.zeropage, target.page(1)), .refused(.noSuchProcess),
                    "ZEROPAGE once the process is gone, to which was made: \(name)")
            }
        },
        SelftestCase(
            "process-replaced", "when the process has become another program, each call says so",
            requires: [.file("/bin/sleep")], covers: [.endedProcess]
        ) { context in
            let target = try TargetProcess(then: [.exec])
            try target.child.resume()
            // WAKE works on nothing at all; only filling tells that the memory is gone.
            try Waiting.until("the other program has taken the place of the memory") {
                target.uffd.raw(.zeropage, target.page(0)).errno == ESRCH
                    || target.uffd.raw(.zeropage, target.page(1)).errno == ESRCH
            }
            try target.uffd.expectProcessGone(target.page(1))
            try target.child.kill()
        },
    ]

}

extension UserfaultFD {
    /// Fails unless each call says that the process is gone whose memory this descriptor guards.
    func expectProcessGone(_ page: AddressRange) throws {
        let features = supportedFeatures
        let source = try Mapping(anonymous: PageSize.base.bytes).release()
        for call in [FillCall.copy, .zeropage, .continue, .poison] where features.isSuperset(of: call.features) {
            try expectEqual(
                raw(call, page, source: source.start), .refused(.noSuchProcess),
                "\(call.rawValue) of a process gone")
        }
        if features.contains(.move) {
            try expectEqual(
                raw(.move, page, source: source.start), .refused(.invalidArgument), "MOVE from another process")
        }
        var protection = cuffd_writeprotect(
            range: cuffd_range(start: UInt64(page.start), len: UInt64(page.count)), mode: 1)
        if features.contains(.writeProtect) {
            try expectErrno(
                rawIoctl(CUFFD_IOC_WRITEPROTECT, &protection), .noSuchProcess, "WRITEPROTECT of a process gone")
        }
        if features.contains(.readWriteProtect) {
            try expectErrno(
                rawIoctl(CUFFD_IOC_RWPROTECT, &protection), .noSuchProcess, "RWPROTECT of a process gone")
            var modes = cuffd_set_mode(enable: 0, disable: 0)
            try expectErrno(rawIoctl(CUFFD_IOC_SET_MODE, &modes), .noSuchProcess, "SET_MODE of a process gone")
        }
        try expectEqual(rawRegister(page, .missing), .refused(.noMemory), "REGISTER of a process gone")
        try expectErrno(
            rawUnregister(start: page.start, count: UInt(page.count)), .noMemory, "UNREGISTER of a process gone")
        try expectErrno(rawWake(start: page.start, count: UInt(page.count)), nil, "WAKE of a process gone")
        try expectEqual(rawPoll(), 0, "poll of a process gone")
        try expectErrno(rawRead(32).errno, .resourceTemporarilyUnavailable, "read of a process gone")
    }
}
