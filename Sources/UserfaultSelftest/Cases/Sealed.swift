import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultFD

/// Memory that mseal(2) has sealed: userfaultfd serves it as any other, and what is refused there raises no event.
enum SealedCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "seal-serves", on: [.anon, .shmem, .hugetlb],
            "sealed memory is registered in part, filled, protected and unregistered as any other",
            requires: [.missingFaults, .writeProtectFaults], covers: [.specialMappings]
        ) { context in
            let area = try Area(context, pages: 6)
            try area.seal(area.range)
            let uffd = try UserfaultFD()
            try uffd.register(area.pages(1..<5), modes: [.missing, .writeProtect])
            let missing = try Touch.read(area.address(2))
            try uffd.expectFault(at: area.address(2), [])
            try uffd.copy(from: area.source(1..<5), to: area.pages(1..<5))
            try missing.finish(with: Pattern.byte(page: 2))
            for page in 1..<5 { try area.expectView(page) }
            try uffd.writeProtect(area.pages(2..<4), .protect)
            let written = try Touch.write(area.address(2), 1)
            try uffd.expectFault(at: area.address(2), [.write, .writeProtect])
            try uffd.writeProtect(area.page(2), .unprotect)
            try written.finish(with: 1)
            try uffd.unregister(area.pages(1..<5))
            for page in [0, 3, 5] { try expectEqual(Touch.store(area.address(page), 7), .byte(7), "a write") }
            try uffd.expectNoMessage("nothing is registered any more")
        },
        SelftestCase(
            "seal-no-event", on: [.anon, .shmem, .hugetlb],
            "a change of sealed memory that is refused raises no event, and leaves it registered and filled",
            requires: [.missingFaults, .features([.eventUnmap, .eventRemap, .eventRemove])],
            covers: [.specialMappings, .unmapEvent, .remapEvent, .removeEvent]
        ) { context in
            let area = try Area(context)
            let target = try reserve(area.range.count, alignment: area.pageSize.bytes)
            let uffd = try UserfaultFD(features: [.eventUnmap, .eventRemap, .eventRemove])
            try area.registerFilled(uffd)
            try area.seal(area.range)
            let fixed = MAP_PRIVATE | MAP_FIXED
            let (whole, part) = (area.range, area.pages(1..<3))
            let calls: [(String, @Sendable () throws -> Void)] = [
                ("munmap", { try checked(RawMemory.unmap(whole)) }),
                ("munmap of a part", { try checked(RawMemory.unmap(part)) }),
                (
                    "mmap over a part",
                    { _ = try RawMemory.mapAnonymous(at: part.start, count: part.count, flags: fixed) }
                ),
                ("mremap to elsewhere", { _ = try Remapping.move(whole, to: target) }),
                ("mremap to fewer pages", { _ = try Remapping.resize(whole, to: part.count) }),
                ("mprotect", { try checked(RawMemory.protect(part, .read)) }),
            ]
            for (name, call) in calls { try expectRefused(name, uffd, call) }
            for page in 0..<4 { try area.expectView(page, "after calls that were refused") }
            let source = try area.source(0..<1)
            try expectEqual(
                uffd.raw(.copy, area.page(0), from: source), .failed(.fileExists), "COPY to what is registered still")
        },
        SelftestCase(
            "seal-part", on: [.anon, .shmem, .hugetlb],
            "munmap over memory whose end is sealed unmaps nothing, though some kernels raise an event all the same",
            requires: [.missingFaults, .features(.eventUnmap)], covers: [.specialMappings, .unmapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .eventUnmap)
            try area.registerFilled(uffd)
            try area.seal(area.pages(2..<4))
            let whole = area.range
            let call = try BackgroundCall { RawMemory.unmap(whole) }
            try call.waitEvent(of: uffd)
            // Its first part could be unmapped; that the whole cannot is found out later.
            if try uffd.poll(timeout: .zero) {
                context.record("munmap that is refused raises an event")
                try uffd.expectUnmap(whole)
            }
            try expectEqual(try call.finish(), -EPERM, "answer of munmap over sealed memory")
            for page in 0..<4 { try area.expectView(page, "after munmap was refused") }
            try expectEqual(
                uffd.raw(.copy, area.page(0), from: area.source(0..<1)), .failed(.fileExists),
                "COPY to what is registered still")
        },
        SelftestCase(
            "seal-no-remove", on: [.anon],
            "MADV_DONTNEED of sealed memory that cannot be written is refused without an event",
            requires: [.missingFaults, .features(.eventRemove)], covers: [.specialMappings, .removeEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .eventRemove)
            try area.registerFilled(uffd)
            try area.view.protect(.read)
            try area.seal(area.range)
            let part = area.pages(1..<3)
            try expectRefused("MADV_DONTNEED", uffd) { try checked(RawMemory.advise(part, .dontNeed)) }
            for page in 0..<4 { try area.expectView(page, "after MADV_DONTNEED was refused") }
        },
    ]

    /// Fails unless a call answers EPERM, and no event comes of it.
    private static func expectRefused(
        _ name: String, _ uffd: borrowing UserfaultFD, _ call: @escaping @Sendable () throws -> Void
    ) throws {
        let call = try BackgroundCall(name, call)
        try call.waitEvent(of: uffd)
        try uffd.expectNoMessage("\(name) of sealed memory does nothing")
        do {
            try call.finish()
        } catch let error as Errno {
            return try expectEqual(error, .notPermitted, "errno of \(name) of sealed memory")
        }
        throw CaseFailure(expected: "\(name) of sealed memory is refused", seen: "it is done")
    }
}

extension Area {
    /// Seals a part of the view, which the end of the process alone unmaps then.
    func seal(_ part: AddressRange) throws {
        let lack = KernelLack(
            call: "mseal", error: .noFunction, since: KernelRelease(6, 10), reason: "mseal(2) is not there (Linux 6.10)"
        )
        try lack.check(css_seal(part.start, part.count))
    }
}
