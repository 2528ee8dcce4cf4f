import CUserfaultFD
import Glibc
import SystemPackage
import UserfaultFD

/// UFFDIO_API: the first call on a descriptor, which agrees on the features.
enum HandshakeCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "UFFDIO_API (with syscall)",
            "UFFDIO_API refuses what it does not know, and then succeeds once",
            requires: [.systemCall], covers: [.upstream, .handshake]
        ) { _ in try agree(on: UserfaultFD(unnegotiated: .init(way: .systemCall))) },
        SelftestCase(
            "UFFDIO_API (with /dev/userfaultfd)",
            "UFFDIO_API refuses what it does not know, and then succeeds once",
            requires: [.device], covers: [.upstream, .handshake]
        ) { _ in try agree(on: UserfaultFD(unnegotiated: .init(way: .device))) },
        SelftestCase(
            "api-reports-everything",
            "UFFDIO_API answers all features and ioctls there are, whichever were asked for, and fdinfo says so too",
            covers: [.handshake, .fdinfo]
        ) { context in
            let first = try UserfaultFD(unnegotiated: .init())
            let plain = first.rawHandshake(features: 0)
            let features = UserfaultFD.Features(rawValue: plain.features)
            context.record("features 0x\(String(plain.features, radix: 16))")
            try expectLawful(features)

            var ioctls: UserfaultFD.Ioctls = [.register, .unregister, .api]
            if features.contains(.readWriteProtect) { ioctls.insert(.setMode) }
            try expectEqual(UserfaultFD.Ioctls(rawValue: plain.ioctls), ioctls, "ioctls of a descriptor")

            let second = try UserfaultFD(unnegotiated: .init())
            let asked: UserfaultFD.Features = [.sigbus, .threadID]
            try expectEqual(second.rawHandshake(features: asked.rawValue), plain, "answer to another set of features")
            try expectEqual(second.status().features, asked, "features in force")

            // fdinfo shows every ioctl of the kernel, also those that need a feature; SET_MODE is a descriptor's.
            let ofRanges = RangeIoctls.all(features)
            try expectEqual(
                second.status().ioctls.subtracting(.setMode), ofRanges.union([.register, .unregister, .api]),
                "ioctls in fdinfo")
        },
        SelftestCase(
            "api-unknown-feature",
            "each feature bit that the kernel does not offer is refused with EINVAL and leaves all open",
            covers: [.handshake]
        ) { _ in
            let known = try UserfaultFD().supportedFeatures.rawValue
            let uffd = try UserfaultFD(unnegotiated: .init())
            for bit in 0..<64 where known >> bit & 1 == 0 {
                // RWP_ASYNC needs RWP: with all that is known, the unknown bit alone displeases.
                for others: UInt64 in [0, known & ~UserfaultFD.Features.eventFork.rawValue] {
                    try expectEqual(
                        uffd.rawHandshake(features: others | 1 << bit), .refused(.invalidArgument),
                        "UFFDIO_API with feature bit \(bit)")
                    try expect(!uffd.status().isNegotiated, "a refusal leaves the descriptor as it was")
                }
            }
            try expectEqual(uffd.rawHandshake(features: 0).errno, 0, "UFFDIO_API after refusals")
        },
        SelftestCase(
            "api-enables-what-was-asked",
            "each feature alone can be enabled, and then that one is in force and no other",
            covers: [.handshake, .fdinfo]
        ) { context in
            let known = try UserfaultFD().supportedFeatures
            var wanted = (0..<31).map { UserfaultFD.Features(rawValue: 1 << $0) }.filter { known.contains($0) }
            wanted.removeAll { $0 == .readWriteProtectAsync }
            if known.contains(.readWriteProtectAsync) { wanted.append([.readWriteProtect, .readWriteProtectAsync]) }
            wanted.append(known)
            if !Privilege.hasTracing {
                wanted = wanted.map { $0.subtracting(.eventFork) }
                context.record("without EVENT_FORK, which needs CAP_SYS_PTRACE")
            }
            for features in wanted {
                let uffd = try UserfaultFD(unnegotiated: .init())
                let answer = uffd.rawHandshake(features: features.rawValue)
                try expectEqual(answer.errno, 0, "errno of UFFDIO_API \(features)")
                try expectEqual(answer.features, known.rawValue, "features that UFFDIO_API \(features) answers")
                let implied: UserfaultFD.Features =
                    features.contains(.writeProtectAsync) ? .writeProtectUnpopulated : []
                try expectEqual(uffd.status().features, features.union(implied), "features in force")
            }
        },
        SelftestCase(
            "api-once",
            "a second UFFDIO_API is refused with EINVAL and a zeroed argument, and changes nothing",
            covers: [.handshake]
        ) { _ in
            let uffd = try UserfaultFD(features: .threadID)
            for features in [[], .threadID, .sigbus] as [UserfaultFD.Features] {
                try expectEqual(
                    uffd.rawHandshake(features: features.rawValue), .refused(.invalidArgument), "a second UFFDIO_API")
                try expectEqual(uffd.status().features, .threadID, "features in force after it")
                try expect(uffd.status().isNegotiated, "the descriptor stays negotiated")
            }
            let memory = try reserve(PageSize.base.bytes)
            try uffd.register(memory, modes: .missing)
        },
        SelftestCase(
            "api-fork-privilege",
            "EVENT_FORK without CAP_SYS_PTRACE is refused with EPERM and leaves all open",
            covers: [.handshake, .opening]
        ) { _ in
            try Privilege.dropTracing()
            let known = try UserfaultFD().supportedFeatures
            let uffd = try UserfaultFD(unnegotiated: .init())
            for features in [.eventFork, [.eventFork, .threadID]] as [UserfaultFD.Features] {
                try expectEqual(
                    uffd.rawHandshake(features: features.rawValue), .refused(.notPermitted), "UFFDIO_API \(features)")
            }
            // Linux 5.10 looks at unknown bits first.
            let both = uffd.rawHandshake(features: UserfaultFD.Features.eventFork.rawValue | 1 << 62)
            try expectOne(
                of: [.refused(.notPermitted), .refused(.invalidArgument)], both, "EVENT_FORK and an unknown bit")
            try expect(!uffd.status().isNegotiated, "a refusal leaves the descriptor as it was")
            // The other events need no privilege.
            let others = known.intersection([.eventRemap, .eventRemove, .eventUnmap])
            try expectEqual(uffd.rawHandshake(features: others.rawValue).errno, 0, "UFFDIO_API \(others)")
            try expectEqual(uffd.status().features, others, "features in force")
        },
        SelftestCase(
            "api-rwp-async-alone",
            "RWP_ASYNC without RWP is refused with EINVAL",
            requires: [.features(.readWriteProtectAsync)], covers: [.handshake]
        ) { _ in
            let uffd = try UserfaultFD(unnegotiated: .init())
            let alone = UserfaultFD.Features.readWriteProtectAsync
            try expectEqual(
                uffd.rawHandshake(features: alone.rawValue), .refused(.invalidArgument), "UFFDIO_API RWP_ASYNC")
            let both = alone.union(.readWriteProtect)
            try expectEqual(uffd.rawHandshake(features: both.rawValue).errno, 0, "UFFDIO_API RWP RWP_ASYNC")
            try expectEqual(uffd.status().features, both, "features in force")
        },
        SelftestCase(
            "api-bad-pointer",
            "an argument that cannot be read or written is EFAULT, and leaves the descriptor as it was",
            covers: [.handshake]
        ) { _ in
            let uffd = try UserfaultFD(unnegotiated: .init())
            let page = PageSize.base.bytes
            let memory = try Mapping(anonymous: 2 * page)
            let argument = UnsafeMutableRawPointer(bitPattern: memory.range.start)!
            argument.storeBytes(of: CUFFD_API_VERSION, as: UInt64.self)
            try memory.protect(.none, memory.page(1))
            let crossing = argument + page - 16
            crossing.storeBytes(of: CUFFD_API_VERSION, as: UInt64.self)
            for (pointer, what) in [(nil, "NULL"), (argument + page, "PROT_NONE"), (crossing, "half readable")] {
                try expectErrno(uffd.rawIoctl(CUFFD_IOC_API, pointer), .badAddress, "UFFDIO_API of a \(what) argument")
            }
            try memory.protect(.read, memory.page(0))
            try expectErrno(uffd.rawIoctl(CUFFD_IOC_API, argument), .badAddress, "UFFDIO_API of a read-only argument")
            _ = memory.release()
            try expect(!uffd.status().isNegotiated, "a refusal leaves the descriptor as it was")
            try expectEqual(uffd.rawHandshake(features: 0).errno, 0, "UFFDIO_API after refusals")
        },
    ]

    /// What upstream's test of the same name does, with the errno and the argument of each call.
    private static func agree(on uffd: consuming UserfaultFD) throws {
        for version in [0, 0xA9, 0xAB, 0x1_0000_00AA, .max] as [UInt64] {
            try expectEqual(
                uffd.rawHandshake(api: version, features: 0), .refused(.invalidArgument),
                "UFFDIO_API of version 0x\(String(version, radix: 16))")
        }
        try expectEqual(
            uffd.rawHandshake(features: 1 << 63), .refused(.invalidArgument), "UFFDIO_API with feature bit 63")
        try expect(!uffd.status().isNegotiated, "refusals leave the descriptor as it was")

        let answer = uffd.rawHandshake(features: 0)
        try expectEqual(answer.errno, 0, "errno of UFFDIO_API")
        try expectEqual(answer.api, CUFFD_API_VERSION, "version that UFFDIO_API answers")
        let ioctls = UserfaultFD.Ioctls(rawValue: answer.ioctls)
        try expect(ioctls.isSuperset(of: [.register, .unregister, .api]), "ioctls of a descriptor", seen: "\(ioctls)")

        try expectEqual(
            uffd.rawHandshake(features: 1), .refused(.invalidArgument), "a second UFFDIO_API with feature bit 0")
        try expectEqual(uffd.rawHandshake(features: 0), .refused(.invalidArgument), "a second UFFDIO_API")
        try expectEqual(uffd.status().features, [], "features in force")
    }

    /// Features come with a kernel version, all of those before it included, unless the architecture or the
    /// configuration lacks what a group of them needs.
    private static func expectLawful(_ features: UserfaultFD.Features) throws {
        let newest = 63 - features.rawValue.leadingZeroBitCount
        let offered = UserfaultFD.Features(rawValue: 1 << (newest + 1) - 1)
        let markers: UserfaultFD.Features = [
            .writeProtectHugetlbfsShmem, .writeProtectUnpopulated, .writeProtectAsync,
        ]
        let groups = [
            markers, markers.union(.writeProtect), [.minorHugetlbfs, .minorShmem],
            [.readWriteProtect, .readWriteProtectAsync],
        ]
        var missing = offered.subtracting(features)
        for group in groups where group.intersection(offered).isSubset(of: missing) {
            missing.subtract(group)
        }
        try expect(missing.isEmpty, "features without a gap", seen: "\(missing) missing from \(features)")
    }
}
