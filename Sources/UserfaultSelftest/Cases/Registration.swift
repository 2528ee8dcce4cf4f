import SystemPackage
import UserfaultFD

/// UFFDIO_REGISTER and UFFDIO_UNREGISTER: what is registered, how, and what the calls answer.
enum RegistrationCases: CaseTheme {
    static let cases: [SelftestCase] = [
        // Upstream's test of the same name, for all modes, with the whole mask and both neighbours of the page.
        SelftestCase(
            "register-ioctls", on: .all,
            "each set of modes is accepted where the memory can do it, answers the mask of its ioctls and shows in smaps",
            covers: [.upstream, .registerErrors, .unregister]
        ) { context in
            let area = try Area(context, pages: 3)
            let known = try UserfaultFD().supportedFeatures
            let uffd = try UserfaultFD(features: known.intersection(.readWriteProtect))
            for modes in UserfaultFD.RegisterModes.combinations {
                let lawful = modes.areLawful(on: context.memory, known)
                let mask = RangeIoctls.registered(modes, isHugetlb: context.memory.isHugetlb, known)
                let right = lawful ? RawAnswer(errno: 0, word: Int64(mask.rawValue)) : .refused(.invalidArgument)
                try expectEqual(uffd.rawRegister(area.page(1), modes), right, "UFFDIO_REGISTER \(modes)")

                try area.expectModes(0, [], "in front of what was registered \(modes)")
                try area.expectModes(1, lawful ? modes : [], "after UFFDIO_REGISTER \(modes)")
                try area.expectModes(2, [], "behind what was registered \(modes)")
                try uffd.unregister(area.page(1))
                try area.expectModes(1, [], "after UFFDIO_UNREGISTER")
            }
            // Mappings of huge pages are never merged.
            if !context.memory.isHugetlb {
                try expectEqual(mappings(in: area.range), [area.range], "mappings after the last UFFDIO_UNREGISTER")
            }
        },
        SelftestCase(
            "register-again", on: .eachKind,
            "registering again never narrows the modes, replaces them where they are not enough, and drops no protection",
            requires: [.missingFaults], covers: [.registerAgain]
        ) { context in
            let area = try Area(context, pages: 3)
            let known = try UserfaultFD().supportedFeatures
            let uffd = try UserfaultFD(features: known.intersection(.readWriteProtect))
            let keepsProtection = known.contains(.readWriteProtect)
            let protecting: UserfaultFD.RegisterModes = [.writeProtect, .readWriteProtect]
            let lawful = UserfaultFD.RegisterModes.combinations.filter { $0.areLawful(on: context.memory, known) }
            for old in lawful {
                for new in lawful {
                    try uffd.register(area.page(1), modes: old)
                    let answer = uffd.rawRegister(area.page(1), new)
                    let mask = RangeIoctls.registered(new, isHugetlb: context.memory.isHugetlb, known)
                    let isLossy = !old.intersection(protecting).isSubset(of: new)
                    // Since Linux 7.3, which brought RWP, a protection cannot be dropped so.
                    if isLossy && (keepsProtection || answer.errno != 0) {
                        try expectEqual(answer, .refused(.resourceBusy), "UFFDIO_REGISTER \(new) over \(old)")
                        try area.expectModes(1, old, "after \(new) over \(old) was refused")
                    } else {
                        try expectEqual(
                            answer, RawAnswer(errno: 0, word: Int64(mask.rawValue)),
                            "UFFDIO_REGISTER \(new) over \(old)")
                        try area.expectModes(1, old.isSuperset(of: new) ? old : new, "after \(new) over \(old)")
                    }
                    try uffd.unregister(area.page(1))
                }
            }
        },
        SelftestCase(
            "register-splits", on: [.anon, .shmem, .shmemPrivate],
            "registering and unregistering parts splits the mapping there and nowhere else, and merges it again",
            requires: [.missingFaults], covers: [.registerAgain]
        ) { context in
            let area = try Area(context, pages: 6)
            let uffd = try UserfaultFD()
            let other = try UserfaultFD()
            let wp = PageFault.Kind.writeProtect.modes
            let canProtect = wp.areLawful(on: context.memory, uffd.supportedFeatures)
            func expectBoundaries(_ right: [Int], _ what: String) throws {
                try expectEqual(boundaries(area), right, "pages where a new mapping begins, after \(what)")
            }
            try uffd.register(area.pages(1..<3), modes: .missing)
            try expectBoundaries([1, 3], "pages 1 and 2 were registered")
            try uffd.register(area.page(3), modes: .missing)
            try expectBoundaries([1, 4], "the next page was registered alike")
            try uffd.register(area.page(0), modes: .missing)
            try expectBoundaries([4], "the page in front was registered alike")
            try other.register(area.page(5), modes: .missing)
            try expectBoundaries([4, 5], "the last page was registered by another userfaultfd")
            if canProtect {
                try uffd.register(area.page(4), modes: wp)
                try expectBoundaries([4, 5], "page 4 was registered for write-protect faults")
            }
            try uffd.unregister(area.pages(4..<5))
            try uffd.unregister(area.page(2))
            try expectBoundaries([2, 3, 4, 5], "page 2 was unregistered")

            // Each piece is still the right part of its file.
            for page in 0..<6 {
                let isMissing = page != 2 && page != 4
                try area.expectModes(page, isMissing ? .missing : [], "of the pieces")
                guard isMissing else { continue }
                let touch = try Touch.read(area.address(page))
                if page == 5 {
                    try other.expectFault(at: area.address(page), [])
                } else {
                    try uffd.expectFault(at: area.address(page), [])
                }
                try uffd.copy(from: area.source(page..<page + 1), to: area.page(page))
                // The copy came from another userfaultfd than the waiter's own, which alone can wake it.
                if page == 5 { try other.wake(area.page(page)) }
                try touch.finish()
                try area.expectView(page)
                if context.memory == .shmem { try area.expectFile(page) }
            }
            try uffd.unregister(area.pages(0..<5))
            try other.unregister(area.page(5))
            // Private pieces that have pages of their own may stay apart.
            if context.memory == .shmem { try expectBoundaries([], "everything was unregistered") }
            for page in [0, 1, 3, 5] { try area.expectView(page, "contents after everything was unregistered") }
        },
        SelftestCase(
            "register-over-mappings", on: [.anon, .shmem],
            "one call registers parts of several mappings and skips the holes between them",
            requires: [.missingFaults], covers: [.registerErrors, .registerAgain]
        ) { context in
            let area = try Area(context, pages: 9)
            let uffd = try UserfaultFD()
            // Three mappings: 0 to 2 read-only, a hole at 3, 4 and 5, and 6 to 8 read-only.
            try area.view.protect(.read, area.pages(0..<3))
            try AddressSpace.unmap(area.page(3))
            try area.view.protect(.read, area.pages(6..<9))
            try uffd.register(area.pages(1..<8), modes: .missing)
            for page in [0, 1, 2, 4, 5, 6, 7, 8] {
                try area.expectModes(page, (1..<8).contains(page) ? .missing : [], "of a range over three mappings")
            }
            try expectEqual(mappings(in: area.page(3)), [], "mappings in the hole")
            let touched = [1, 2, 4, 5, 6, 7]
            var touches: [Touch] = []
            for page in touched {
                touches.append(try Touch.read(area.address(page)))
                try uffd.expectFault(at: area.address(page), [])
                try uffd.copy(from: area.source(page..<page + 1), to: area.page(page))
            }
            for touch in touches { try touch.finish() }
            for page in touched { try area.expectView(page) }
            for page in [0, 8] { try expectEqual(Touch.load(area.address(page)), .byte(0), "an unregistered page") }
            try uffd.unregister(area.pages(2..<7))
            for page in [0, 1, 2, 4, 5, 6, 7, 8] {
                try area.expectModes(
                    page, page == 1 || page == 7 ? .missing : [], "after UFFDIO_UNREGISTER of the middle")
            }
        },
        SelftestCase(
            "register-over-huge-pages", on: [.hugetlb, .hugetlbPrivate],
            "a range of ordinary and huge pages answers the huge pages' mask, and each part faults with its own pages",
            requires: [.missingFaults], covers: [.mixedMemory]
        ) { context in
            let area = try Area(context, pages: 2)
            let base = PageSize.base.bytes
            let place = try reserve(3 * area.pageSize.bytes, alignment: area.pageSize.bytes)
            // Two huge pages with an ordinary one in front and one behind.
            let huge = place.start + UInt(area.pageSize.bytes)
            let view = try Mapping(
                area.file!, count: area.pageSize.bytes, sharing: context.memory.isPrivate ? .private : .shared,
                placement: .replacing(huge), options: .noReserve
            ).release()
            let front = AddressRange(start: huge - UInt(base), count: base)
            let behind = AddressRange(start: view.end, count: base)
            for page in [front, behind] {
                try checked(RawMemory.protect(page, .readWrite))
            }
            let uffd = try UserfaultFD()
            let range = AddressRange(start: front.start, end: behind.end)
            let mask = RangeIoctls.registered(.missing, isHugetlb: true, uffd.supportedFeatures)
            try expectEqual(
                uffd.rawRegister(range, .missing), RawAnswer(errno: 0, word: Int64(mask.rawValue)),
                "UFFDIO_REGISTER over huge and ordinary pages")
            for address in [front.start, huge, behind.start] {
                try expectEqual(MappingAccount(holding: address).userfaultFlags, ["um"], "userfaultfd flags in smaps")
                let touch = try Touch.read(address + 0x321)
                try uffd.expectFault(at: address, [])
                let count = address == huge ? area.pageSize.bytes : base
                let source = try Mapping(anonymous: count)
                // The ends of a huge page tell enough.
                for end in [0, count - base] {
                    Pattern.write(seed: 3, page: end, at: source.range.start + UInt(end), count: base)
                }
                try uffd.copy(from: source, to: AddressRange(start: address, count: count))
                try touch.finish()
                for end in [0, count - base] {
                    try Pattern.expect(seed: 3, page: end, at: address + UInt(end), count: base, "contents")
                }
            }
            // An end inside a huge page is refused, before the ordinary page in front is touched.
            try uffd.unregister(range)
            try expectEqual(
                uffd.rawRegister(start: front.start, count: UInt(2 * base), mode: 1), .refused(.invalidArgument),
                "UFFDIO_REGISTER with an end inside a huge page")
            try expectEqual(MappingAccount(holding: front.start).userfaultFlags, [], "flags of the page in front")
        },
        SelftestCase(
            "unregister-skips", on: .eachKind,
            "unregistering what is not registered is no error, also twice, also where only a part is",
            requires: [.missingFaults], covers: [.unregister]
        ) { context in
            let area = try Area(context, pages: 5)
            let uffd = try UserfaultFD()
            try uffd.unregister(area.range)
            for _ in 0..<2 {
                try uffd.register(area.page(2), modes: .missing)
                try uffd.unregister(area.range)
                for page in 0..<5 { try area.expectModes(page, [], "after UFFDIO_UNREGISTER") }
                try uffd.unregister(area.range)
            }
            for page in 0..<5 {
                try expectEqual(Touch.load(area.address(page)), .byte(0), "what ordinary memory reads")
                try expectEqual(Touch.store(area.address(page), 9), .byte(9), "what ordinary memory takes")
            }
            try uffd.expectNoMessage("nothing is registered")
        },
    ]

    /// Pages of an area at which a mapping begins, the first aside.
    private static func boundaries(_ area: Area) -> [Int] {
        mappings(in: area.range).dropFirst().map { Int($0.start - area.range.start) / area.pageSize.bytes }
    }
}
