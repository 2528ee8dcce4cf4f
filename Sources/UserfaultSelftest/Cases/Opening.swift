import CSelftestSupport
import CUserfaultFD
import Glibc
import SystemPackage
import UserfaultFD

/// Getting a descriptor: who may, with which flags, and what it is then.
enum OpeningCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "open-flags", "each set of flags gives a descriptor that has these flags and no others",
            requires: [.systemCall], covers: [.opening]
        ) { context in try flags(.systemCall, context) },
        SelftestCase(
            "open-flags-device", "each set of flags gives a descriptor that has these flags and no others",
            requires: [.device], covers: [.opening]
        ) { context in try flags(.device, context) },
        SelftestCase(
            "open-privilege",
            "without CAP_SYS_PTRACE and with the sysctl at 0 only user-mode faults may be handled, by the system call",
            requires: [.systemCall, .setting(.unprivilegedUserfaultfd, "0")], covers: [.opening]
        ) { context in
            let userMode = Int32(CUFFD_USER_MODE_ONLY)
            let unknown: Int32 = 1 << 30
            let way = RawOpening.systemCall
            let knowsUserMode = userModeIsKnown
            if Privilege.hasTracing {
                try way.expect(0, nil, "with the capability")
                try way.expect(unknown, .invalidArgument, "with the capability and an unknown flag")
            }
            try Privilege.dropTracing()
            try way.expect(0, .notPermitted, "without the capability")
            try way.expect(CUFFD_O_CLOEXEC | CUFFD_O_NONBLOCK, .notPermitted, "without the capability")
            try way.expect(unknown, .notPermitted, "without the capability and with an unknown flag")
            guard knowsUserMode else { return context.record("this kernel has no UFFD_USER_MODE_ONLY") }
            try way.expect(userMode, nil, "user-mode faults only")
            try way.expect(userMode | CUFFD_O_CLOEXEC | CUFFD_O_NONBLOCK, nil, "user-mode faults only")
            try way.expect(userMode | unknown, .invalidArgument, "user-mode faults only and an unknown flag")
        },
        SelftestCase(
            "open-sysctl", "with the sysctl at 1 everybody may handle the kernel's faults",
            requires: [.systemCall, .setting(.unprivilegedUserfaultfd, "1")], covers: [.opening]
        ) { _ in
            try Privilege.dropTracing()
            try RawOpening.systemCall.expect(0, nil, "sysctl 1")
            try RawOpening.systemCall.expect(CUFFD_O_CLOEXEC, nil, "sysctl 1")
        },
        SelftestCase(
            "open-user-namespace", "a capability in a user namespace of one's own counts for nothing",
            requires: [.systemCall, .setting(.unprivilegedUserfaultfd, "0")], covers: [.opening]
        ) { context in
            let knowsUserMode = userModeIsKnown
            try Privilege.enterUserNamespace()
            try RawOpening.systemCall.expect(0, .notPermitted, "with CAP_SYS_PTRACE in a namespace")
            guard knowsUserMode else { return }
            try RawOpening.systemCall.expect(Int32(CUFFD_USER_MODE_ONLY), nil, "user-mode faults only")
            try expectEqual(
                UserfaultFD(unnegotiated: .init()).rawHandshake(features: UserfaultFD.Features.eventFork.rawValue),
                .refused(.notPermitted), "EVENT_FORK with CAP_SYS_PTRACE in a namespace")
        },
        SelftestCase(
            "open-device-privilege", "whoever can open the device needs neither the capability nor the sysctl",
            requires: [.device, .setting(.unprivilegedUserfaultfd, "0")], covers: [.opening]
        ) { _ in
            try Privilege.dropTracing()
            try RawOpening.device.expect(0, nil, "without privilege")
            try RawOpening.device.expect(Int32(CUFFD_USER_MODE_ONLY), nil, "without privilege")
        },
        SelftestCase(
            "open-device-commands", "the device has one command and answers EINVAL to every other",
            requires: [.device], covers: [.opening]
        ) { _ in
            let device = cuffd_device_open()
            try checked(device)
            let wrong: [UInt64] = [
                CUFFD_IOC_API, CUFFD_IOC_REGISTER, CUFFD_IOC_WAKE, 0xAA01, 0xAA3F, 0xAB00, 0x4000_AA00, 0x8008_AA00, 0,
            ]
            for command in wrong {
                try expectErrno(
                    -cuffd_ioctl(device, command, nil), .invalidArgument,
                    "command 0x\(String(command, radix: 16)) on the device")
            }
            let uffd = cuffd_device_new(device, CUFFD_O_CLOEXEC)
            try expect(uffd >= 0, "the device's own command works after those", seen: "errno \(-uffd)")
        },
        SelftestCase(
            "open-exhausted", "a full descriptor table is EMFILE, and nothing is left behind", requires: [.systemCall],
            covers: [.exhaustion]
        ) { _ in
            let device = cuffd_device_open()
            try Privilege.exhaustDescriptors()
            let flags = CUFFD_O_CLOEXEC | (userModeIsKnown ? Int32(CUFFD_USER_MODE_ONLY) : 0)
            for _ in 0..<3 {
                try RawOpening.systemCall.expect(flags, .tooManyOpenFiles, "with no free descriptor")
                guard device >= 0 else { continue }
                try expectErrno(
                    -cuffd_device_new(device, flags), .tooManyOpenFiles, "the device with no free descriptor")
            }
        },
        SelftestCase(
            "open-inode", "the descriptor can be neither written nor mapped, and says what it is", covers: [.callOrder]
        ) { context in
            let uffd = try UserfaultFD()
            try uffd.withUnsafeDescriptor { descriptor in
                try expectEqual(
                    ProcFile.link("/proc/self/fd/\(descriptor.rawValue)"), "anon_inode:[userfaultfd]",
                    "its name in /proc")
                var word: UInt64 = 1
                let answer = write(descriptor.rawValue, &word, 8)
                let seen = Errno(rawValue: errno)
                // Descriptors were opened for reading and writing before Linux 6.0.
                try expect(
                    answer == -1 && [.badFileDescriptor, .invalidArgument].contains(seen), "a write is refused",
                    seen: "\(answer), \(seen)")
                var address: UInt64 = 0
                try expectErrno(
                    -cuffd_mmap(
                        &address, PageSize.base.bytes, CUFFD_PROT_READ, CUFFD_MAP_PRIVATE, descriptor.rawValue, 0),
                    Errno(rawValue: ENODEV), "mmap of a userfaultfd")
            }
        },
    ]

    /// Whether the kernel has UFFD_USER_MODE_ONLY, which came with Linux 5.11; to be asked before giving up privilege.
    private static var userModeIsKnown: Bool {
        let answer = cuffd_userfaultfd(Int32(CUFFD_USER_MODE_ONLY))
        if answer >= 0 { _ = close(answer) }
        return answer != -Errno.invalidArgument.rawValue
    }

    private static func flags(_ way: RawOpening, _ context: CaseContext) throws {
        let userMode = userModeIsKnown ? Int32(CUFFD_USER_MODE_ONLY) : 0
        let known = try UserfaultFD().supportedFeatures
        for flags in [0, CUFFD_O_CLOEXEC, CUFFD_O_NONBLOCK, CUFFD_O_CLOEXEC | CUFFD_O_NONBLOCK] {
            let descriptor = try checked(way.open(flags | userMode))
            defer { _ = close(descriptor) }
            let name = "opened with 0o\(String(flags, radix: 8))"
            try expectEqual(
                fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0, flags & CUFFD_O_CLOEXEC != 0, "close-on-exec, \(name)")
            let status = cuffd_status_flags(descriptor)
            try expectEqual(status & CUFFD_O_NONBLOCK, flags & CUFFD_O_NONBLOCK, "O_NONBLOCK, \(name)")
            let access = status & O_ACCMODE
            // Linux 6.0 and those that have its fix open for reading alone; the feature came with 6.4.
            let lawful = known.contains(.writeProtectUnpopulated) ? [O_RDONLY] : [O_RDONLY, O_RDWR]
            try expectOne(of: lawful, access, "access mode, \(name)")
        }
        let next = try FileDescriptor.open("/", .readOnly)
        try next.close()
        for bit in 0..<32 {
            let flag = Int32(bitPattern: 1 << bit)
            guard !RawOpening.flags.contains(flag) else { continue }
            try way.expect(flag | userMode, .invalidArgument, "an unknown flag")
            try way.expect(flag | userMode | CUFFD_O_CLOEXEC | CUFFD_O_NONBLOCK, .invalidArgument, "an unknown flag")
        }
        let after = try FileDescriptor.open("/", .readOnly)
        try expectEqual(after.rawValue, next.rawValue, "the next free descriptor, after refusals")
        try after.close()
    }
}
