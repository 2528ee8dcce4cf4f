import CUserfaultFD
import Glibc
import SystemPackage
import UserfaultFD

/// What UFFDIO_REGISTER and UFFDIO_UNREGISTER refuse: with which errno, and that nothing has changed then.
enum RegistrationErrorCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "register-refuses", on: [.anon, .shmem, .hugetlb],
            "bad ranges, bad modes and bad arguments are refused, and nothing is registered",
            requires: [.missingFaults], covers: [.registerErrors]
        ) { context in
            let area = try Area(context)
            let known = try UserfaultFD().supportedFeatures
            let uffd = try UserfaultFD()
            for violation in RangeViolation.all(around: area.pages(1..<3)) + misalignedHugePages(area) {
                try expectEqual(
                    uffd.rawRegister(start: violation.start, count: violation.count, mode: 1),
                    .refused(.invalidArgument),
                    "UFFDIO_REGISTER of \(violation.name)")
            }
            // Without the feature RWP its mode is refused like one that no kernel knows.
            let unknown = (3..<64).map { UInt64(1) << $0 }
            for mode in [0] + unknown + unknown.map({ $0 | 1 }) {
                try expectEqual(
                    uffd.rawRegister(area.range, .init(rawValue: mode)), .refused(.invalidArgument),
                    "UFFDIO_REGISTER with mode 0x\(String(mode, radix: 16))")
            }
            for pointer in BadPointer.all() {
                try expectErrno(
                    uffd.rawIoctl(CUFFD_IOC_REGISTER, pointer), .badAddress, "UFFDIO_REGISTER of an unreadable argument"
                )
            }
            for modes in UserfaultFD.RegisterModes.combinations where !modes.areLawful(on: context.memory, known) {
                try expectEqual(
                    uffd.rawRegister(area.range, modes), .refused(.invalidArgument), "UFFDIO_REGISTER \(modes)")
            }
            try expectRegistered(area, [], "after refusals")
            try uffd.register(area.range, modes: .missing)
            try expectRegistered(area, .missing, "after refusals and a registration")
        },
        SelftestCase(
            "unregister-refuses", on: [.anon, .shmem, .hugetlb],
            "bad ranges and bad arguments are refused, and everything stays registered",
            requires: [.missingFaults], covers: [.unregister]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing)
            let misaligned = misalignedHugePages(area).filter { $0.start != area.address(1) }
            for violation in RangeViolation.all(around: area.pages(1..<3)) + misaligned {
                try expectErrno(
                    uffd.rawUnregister(start: violation.start, count: violation.count), .invalidArgument,
                    "UFFDIO_UNREGISTER of \(violation.name)")
            }
            for pointer in BadPointer.all() {
                try expectErrno(
                    uffd.rawIoctl(CUFFD_IOC_UNREGISTER, pointer), .badAddress,
                    "UFFDIO_UNREGISTER of an unreadable argument"
                )
            }
            try expectRegistered(area, .missing, "after refusals")
            var waiters = try Waiters(.missing, area, [2], of: uffd)
            try uffd.copy(from: area.source(2..<3), to: area.page(2))
            try waiters.finish("resolved")
        },
        SelftestCase(
            "register-unmapped", "a range without any mapping is refused", covers: [.registerErrors, .unregister]
        ) { context in
            let uffd = try UserfaultFD()
            let hole = try reserve(4 * PageSize.base.bytes)
            try unmapReserved(hole)
            let answer = uffd.rawRegister(hole, .missing)
            try expectEqual(answer, .refused(.invalidArgument), "UFFDIO_REGISTER of a hole")
            try expectErrno(
                uffd.rawUnregister(start: hole.start, count: UInt(hole.count)), .invalidArgument,
                "UFFDIO_UNREGISTER of a hole")
            // Linux 6.1 has another answer where no mapping follows. One in the upper half is the kernel's.
            let program = mappings(in: AddressRange(start: 0, end: UInt(Int.max)))
            guard let top = program.last?.end else { try context.skip("/proc/self/maps cannot be read") }
            let page = UInt(PageSize.base.bytes)
            let last = uffd.rawRegister(start: top, count: page, mode: 1)
            try expectOne(
                of: [.refused(.invalidArgument), .refused(.noMemory)], last, "UFFDIO_REGISTER behind all mappings")
            try expectErrno(
                uffd.rawUnregister(start: top, count: page), Errno(rawValue: last.errno),
                "UFFDIO_UNREGISTER behind all mappings")
            context.record("behind all mappings: \(last)")
        },
        SelftestCase(
            "register-not-writable", on: [.shmem, .tmpfs, .hugetlb],
            "a shared mapping that can never be written is refused with EPERM, a private or read-only one is not",
            requires: [.missingFaults], covers: [.registerErrors, .unwritableMemory]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            let known = uffd.supportedFeatures
            let count = area.range.count
            let path = area.file!.withUnsafeDescriptor { "/proc/self/fd/\($0.rawValue)" }
            let readOnly = try FileDescriptor.open(path, .readOnly, options: .closeOnExec)
            let modes = UserfaultFD.RegisterModes.combinations.filter { $0.areLawful(on: context.memory, known) }

            // A page of ordinary memory in front must stay as it was.
            for sharing in [Mapping.Sharing.shared, .private] {
                let place = try reserve(2 * count, alignment: area.pageSize.bytes)
                let second = AddressRange(start: place.start + UInt(count), count: count)
                let first = try Mapping(
                    area.file!, protection: .readWrite, placement: .replacing(place.start), options: .noReserve
                ).release()
                let view = try Mapping(
                    file: readOnly, pageSize: area.pageSize, count: count, sharing: sharing, protection: .read,
                    placement: .replacing(second.start), options: .noReserve
                ).release()
                for mode in modes where !mode.contains(.readWriteProtect) {
                    let answer = uffd.rawRegister(place, mode)
                    if sharing == .shared {
                        try expectEqual(answer, .refused(.notPermitted), "UFFDIO_REGISTER \(mode) of a read-only file")
                    } else {
                        try expectEqual(answer.errno, 0, "UFFDIO_REGISTER \(mode) of a private mapping")
                    }
                    let registered = sharing == .shared ? [] : mode.smapsFlags
                    for address in [place.start, second.start] {
                        try expectEqual(
                            MappingAccount(holding: address).userfaultFlags, registered, "userfaultfd flags, \(sharing)"
                        )
                    }
                    try uffd.unregister(first)
                    if sharing == .private { try uffd.unregister(view) }
                }
            }
            // Not writable now, yet it could be made so.
            let closed = try Area(context, protection: .read)
            try uffd.register(closed.range, modes: .missing)
            try refusesSealed(context, area, uffd)
        },
        SelftestCase(
            "register-owned", on: [.anon, .shmem, .hugetlb],
            "memory of another userfaultfd is refused with EBUSY, before anything of the range is registered",
            requires: [.missingFaults], covers: [.registerErrors]
        ) { context in
            let area = try Area(context)
            let owner = try UserfaultFD()
            try owner.register(area.page(2), modes: .missing)
            let second = try UserfaultFD()
            for range in [area.range, area.page(2), area.pages(1..<3), area.pages(2..<4)] {
                try expectEqual(
                    second.rawRegister(range, .missing), .refused(.resourceBusy),
                    "UFFDIO_REGISTER of what is another's")
                for page in 0..<4 { try area.expectModes(page, page == 2 ? .missing : [], "after EBUSY") }
            }
            try second.register(area.pages(0..<2), modes: .missing)
            try second.register(area.page(3), modes: .missing)

            // Each fault goes to the page's own userfaultfd.
            let touches = try (0..<4).map { try Touch.read(area.address($0)) }
            try owner.waitBlocked(1)
            try second.waitBlocked(3)
            try owner.expectFault(at: area.address(2), [])
            try owner.copy(from: area.source(2..<3), to: area.page(2))
            try touches[2].finish()
            try owner.unregister(area.page(2))
            try second.register(area.page(2), modes: .missing)
            try second.close()
            for touch in touches { try touch.finish() }
        },
        SelftestCase(
            "register-output-unwritable", on: [.anon],
            "where the mask cannot be written the answer is EFAULT, and the range is registered all the same",
            requires: [.missingFaults], covers: [.arguments, .registerErrors]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            let pages = try Mapping(anonymous: 2 * PageSize.base.bytes)
            let argument = UnsafeMutableRawPointer(bitPattern: pages.page(1).start - 24)!
            argument.storeBytes(
                of: cuffd_range(start: UInt64(area.address(1)), len: UInt64(area.pageSize.bytes)), as: cuffd_range.self)
            argument.storeBytes(of: 1, toByteOffset: 16, as: UInt64.self)
            try pages.protect(.read, pages.page(1))
            try expectErrno(
                uffd.rawIoctl(CUFFD_IOC_REGISTER, argument), .badAddress, "UFFDIO_REGISTER with a read-only output")
            _ = pages.release()
            try area.expectModes(1, .missing, "after the mask could not be written")
            try area.expectModes(2, [], "behind it")
        },
        SelftestCase(
            "register-fork-child", on: [.anon],
            "registrations do not reach a forked child without EVENT_FORK",
            requires: [.missingFaults], covers: [.passedDescriptors]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing)
            let child = try Child([.load(area.address(1)), .store(area.address(2), 7), .load(area.address(2))])
            try expectEqual(child.finish(), [0, 0, 7], "what the child read, wrote and read")
            try uffd.expectNoMessage("the child's memory is its own")
            try area.expectModes(1, .missing, "in the parent")
        },
    ]

    private static func expectRegistered(
        _ area: Area, _ modes: UserfaultFD.RegisterModes, _ why: String
    ) throws {
        for page in 0..<area.pageCount { try area.expectModes(page, modes, why) }
    }

    private static func misalignedHugePages(_ area: Area) -> [RangeViolation] {
        guard area.memory.isHugetlb else { return [] }
        let (huge, base) = (UInt(area.pageSize.bytes), UInt(PageSize.base.bytes))
        return [
            RangeViolation(name: "a start inside a huge page", start: area.address(1) + base, count: 2 * huge - base),
            RangeViolation(name: "an end inside a huge page", start: area.address(1), count: huge + base),
        ]
    }

    private static func refusesSealed(
        _ context: CaseContext, _ area: Area, _ uffd: borrowing UserfaultFD
    ) throws {
        guard context.memory != .tmpfs else { return }
        let sealed = try Memfd(count: area.range.count, hugePages: context.memory.isHugetlb ? area.pageSize : nil)
        try sealed.addSeals(.futureWrite)
        let view = try Mapping(sealed, protection: .read, options: .noReserve).release()
        try expectEqual(
            uffd.rawRegister(view, .missing), .refused(.notPermitted), "UFFDIO_REGISTER of a sealed memfd")
        try expectEqual(MappingAccount(holding: view.start).userfaultFlags, [], "userfaultfd flags")
    }
}

/// Takes a reservation back, so that nothing is mapped there.
func unmapReserved(_ range: AddressRange) throws {
    try checked(RawMemory.unmap(range))
}
