import CUserfaultFD
import SystemPackage
import UserfaultFD

/// What a descriptor answers before UFFDIO_API, and to commands that there are not.
enum CallOrderCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "order-before-api",
            "before UFFDIO_API every other ioctl and read answer EINVAL, poll answers POLLERR, and nothing is done",
            covers: [.callOrder, .polling]
        ) { _ in
            let uffd = try UserfaultFD(unnegotiated: .init())
            let page = try reserve(PageSize.base.bytes)
            for (request, name) in commands {
                var words = argument(page)
                try expectErrno(uffd.rawIoctl(request, &words), .invalidArgument, "\(name) before UFFDIO_API")
                try expectEqual(words, argument(page), "argument of \(name) before UFFDIO_API")
                try expectErrno(uffd.rawIoctl(request, nil), .invalidArgument, "\(name) of NULL before UFFDIO_API")
            }
            try expectEqual(
                MappingAccount(holding: page.start).userfaultFlags, [], "userfaultfd flags before UFFDIO_API")
            for isNonBlocking in [true, false] {
                try uffd.setNonBlocking(isNonBlocking)
                var message = cuffd_msg()
                let answer = uffd.withUnsafeDescriptor { cuffd_read_messages($0.rawValue, &message, 1) }
                try expectEqual(answer, -Int(Errno.invalidArgument.rawValue), "read before UFFDIO_API")
                let ready = uffd.withUnsafeDescriptor { cuffd_poll($0.rawValue, CUFFD_POLLIN, 0) }
                try expectEqual(ready, Int32(CUFFD_POLLERR), "poll before UFFDIO_API")
            }
            let status = try uffd.status()
            try expect(!status.isNegotiated && status.total == 0, "the descriptor is as it was", seen: "\(status)")
            try expectEqual(uffd.rawHandshake(features: 0).errno, 0, "UFFDIO_API after all that")
        },
        SelftestCase(
            "order-unknown-command",
            "a command that the kernel does not have, in number, size or direction, answers EINVAL and does nothing",
            covers: [.callOrder]
        ) { _ in
            let page = try reserve(PageSize.base.bytes)
            let uffd = try UserfaultFD()
            var known = Set(commands.map(\.request))
            known.insert(CUFFD_IOC_API)
            var wrong: [UInt64] = [0, 1, 0xAA00, 0xAA03, 0xAA3F, 0x5401]
            for request in known {
                // Another direction, another size, another magic, in turn.
                wrong += [1, 2, 3].map { request & ~(3 << 30) | $0 << 30 }
                wrong += [request + (8 << 16), request - (8 << 16), request & ~(0x3FFF << 16), request + 0x100]
            }
            for number in 0..<256 as Range<UInt64> {
                wrong += [16, 24, 32, 40].map { 3 << 30 | $0 << 16 | 0xAA00 | number }
            }
            for request in Set(wrong).subtracting(known) {
                var words = argument(page)
                try expectErrno(
                    uffd.rawIoctl(request, &words), .invalidArgument, "command 0x\(String(request, radix: 16))")
                try expectEqual(words, argument(page), "argument of command 0x\(String(request, radix: 16))")
            }
            try expectEqual(
                MappingAccount(holding: page.start).userfaultFlags, [], "userfaultfd flags after unknown commands")
            try uffd.expectNoMessage("nothing was done")
        },
    ]

    /// Every ioctl with its size; the direction that is encoded is no guide.
    private static let commands: [(request: UInt64, name: String)] = [
        (CUFFD_IOC_REGISTER, "REGISTER"), (CUFFD_IOC_UNREGISTER, "UNREGISTER"), (CUFFD_IOC_WAKE, "WAKE"),
        (CUFFD_IOC_COPY, "COPY"), (CUFFD_IOC_ZEROPAGE, "ZEROPAGE"), (CUFFD_IOC_MOVE, "MOVE"),
        (CUFFD_IOC_WRITEPROTECT, "WRITEPROTECT"), (CUFFD_IOC_CONTINUE, "CONTINUE"), (CUFFD_IOC_POISON, "POISON"),
        (CUFFD_IOC_RWPROTECT, "RWPROTECT"), (CUFFD_IOC_SET_MODE, "SET_MODE"),
    ]

    /// An argument that would register, wake or fill this page.
    private static func argument(_ page: AddressRange) -> [UInt64] {
        [UInt64(page.start), UInt64(page.count), 1, 0, 0]
    }
}
