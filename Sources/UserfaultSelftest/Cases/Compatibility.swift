import Glibc
import SystemPackage
import UserfaultFD

/// Which memory can be registered, and for what.
enum CompatibilityCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "register-every-memory",
            "anonymous memory and shmem can be registered wherever they come from, and no other memory",
            covers: [.registerErrors]
        ) { context in
            let known = try UserfaultFD().supportedFeatures
            let uffd = try UserfaultFD(features: known.intersection(.readWriteProtect))
            for memory in try SpecialMemory.all(context) {
                for modes in UserfaultFD.RegisterModes.combinations {
                    let isLawful = memory.takes(modes, known)
                    let mask = RangeIoctls.registered(modes, isHugetlb: false, known)
                    try expectEqual(
                        uffd.rawRegister(memory.page, modes),
                        isLawful ? RawAnswer(errno: 0, word: Int64(mask.rawValue)) : .refused(.invalidArgument),
                        "UFFDIO_REGISTER \(modes) of \(memory.name)")
                    try expectEqual(
                        MappingAccount(holding: memory.page.start).userfaultFlags, isLawful ? modes.smapsFlags : [],
                        "userfaultfd flags of \(memory.name) after \(modes)")
                    guard isLawful else { continue }
                    try uffd.unregister(memory.page)
                }
            }
        },
        // A page of anonymous memory with a page of a kernel driver's behind it.
        SelftestCase(
            "register-next-to-other-memory",
            "one mapping that cannot be registered makes the whole range fail, before anything of it has changed",
            requires: [.features(.missingShmem)], covers: [.registerErrors, .unregister]
        ) { context in
            let page = PageSize.base.bytes
            for memory in try SpecialMemory.all(context) where [.file, .driver].contains(memory.likeness) {
                let place = try reserve(4 * page)
                // What a driver has mapped can be moved where it can be moved at all.
                guard (try? Remapping.move(memory.page, to: place.part(at: 2 * page, count: page))) != nil else {
                    context.record("\(memory.name) cannot be moved")
                    continue
                }
                let uffd = try UserfaultFD()
                let front = place.part(at: 0, count: 2 * page)
                try expectEqual(
                    uffd.rawRegister(place, .missing), .refused(.invalidArgument),
                    "UFFDIO_REGISTER of a range with \(memory.name) in it")
                try expectEqual(
                    MappingAccount(holding: front.start).userfaultFlags, [], "flags in front of \(memory.name)")
                try uffd.register(front, modes: .missing)
                try expectErrno(
                    uffd.rawUnregister(start: place.start, count: UInt(place.count)), .invalidArgument,
                    "UFFDIO_UNREGISTER of a range with \(memory.name) in it")
                try expectEqual(
                    MappingAccount(holding: front.start).userfaultFlags, ["um"], "flags in front of \(memory.name)")
            }
        },
        SelftestCase(
            "register-async",
            "with WP_ASYNC any mapping can be registered for write protection alone, and nothing else is made possible",
            requires: [.features(.writeProtectAsync)], covers: [.asyncProtection]
        ) { context in
            let known = try UserfaultFD().supportedFeatures
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            // RWP is not negotiated here.
            let features = known.subtracting(.readWriteProtect)
            for memory in try SpecialMemory.all(context) where memory.likeness != .driver {
                for modes in UserfaultFD.RegisterModes.combinations {
                    let answer = uffd.rawRegister(memory.page, modes)
                    var isLawful = memory.takes(modes, features)
                    if modes == .writeProtect && memory.likeness == .file { isLawful = true }
                    let mask = RangeIoctls.registered(modes, isHugetlb: false, known)
                    try expectEqual(
                        answer, isLawful ? RawAnswer(errno: 0, word: Int64(mask.rawValue)) : .refused(.invalidArgument),
                        "UFFDIO_REGISTER \(modes) of \(memory.name)")
                    try expectEqual(
                        MappingAccount(holding: memory.page.start).userfaultFlags, isLawful ? modes.smapsFlags : [],
                        "userfaultfd flags of \(memory.name) after \(modes)")
                    guard isLawful else { continue }
                    try uffd.unregister(memory.page)
                }
            }
        },
        SelftestCase(
            "register-driver", "the memory of a kernel driver cannot be registered, with WP_ASYNC neither",
            requires: [.features(.writeProtectAsync)], covers: [.registerErrors]
        ) { context in
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            let drivers = try SpecialMemory.all(context).filter { $0.likeness == .driver }
            try expect(!drivers.isEmpty, "a driver's memory is mapped")
            for memory in drivers {
                // Some kernels take it where it can become writable: CVE-2026-68166.
                try expectEqual(
                    uffd.rawRegister(memory.page, .writeProtect), .refused(.invalidArgument),
                    "UFFDIO_REGISTER for write protection of \(memory.name)")
            }
        },
        SelftestCase(
            "register-low", "memory below vm.mmap_min_addr can be registered", requires: [.root],
            covers: [.registerErrors]
        ) { context in
            let size = PageSize.base.bytes
            guard let page = try? RawMemory.mapAnonymous(at: UInt(size), count: size, flags: MAP_PRIVATE | MAP_FIXED)
            else { try context.skip("this user may map nothing below vm.mmap_min_addr") }
            let uffd = try UserfaultFD()
            let mask = RangeIoctls.registered(.missing, isHugetlb: false, uffd.supportedFeatures)
            try expectEqual(
                uffd.rawRegister(page, .missing), RawAnswer(errno: 0, word: Int64(mask.rawValue)),
                "UFFDIO_REGISTER of the address 0x\(String(page.start, radix: 16))")
            let touch = try Touch.read(page.start)
            try uffd.expectFault(at: page.start, [])
            try uffd.zeropage(page)
            try touch.finish(with: 0)
        },
        SelftestCase(
            "register-droppable", "droppable memory is refused since Linux 6.17", covers: [.specialMappings]
        ) { context in
            let mapDroppable: Int32 = 8
            guard let page = try? RawMemory.mapAnonymous(count: PageSize.base.bytes, flags: mapDroppable) else {
                try context.skip(kernel: "this kernel has no MAP_DROPPABLE")
            }
            let uffd = try UserfaultFD()
            let answer = uffd.rawRegister(page, .missing)
            let mask = RangeIoctls.registered(.missing, isHugetlb: false, uffd.supportedFeatures)
            try expectOne(
                of: [.refused(.invalidArgument), RawAnswer(errno: 0, word: Int64(mask.rawValue))], answer,
                "UFFDIO_REGISTER of droppable memory")
            try expectEqual(
                MappingAccount(holding: page.start).userfaultFlags, answer.errno == 0 ? ["um"] : [],
                "userfaultfd flags of droppable memory")
            if uffd.supportedFeatures.contains(.readWriteProtect) {
                try expectEqual(answer, .refused(.invalidArgument), "UFFDIO_REGISTER of droppable memory")
            }
            context.record("droppable memory: \(answer)")
        },
        SelftestCase(
            "register-growing-stack", "a registered stack mapping that grows is registered where it has grown",
            requires: [.missingFaults], covers: [.specialMappings]
        ) { _ in
            let page = PageSize.base.bytes
            // Room for one page more; inaccessible memory may be nearer than the stack guard gap.
            let place = try reserve(4 * page)
            try unmapReserved(place.part(at: 2 * page, count: page))
            let mapGrowsDown: Int32 = 0x100
            let stack = try RawMemory.mapAnonymous(
                at: place.end - UInt(page), count: page, flags: mapGrowsDown | MAP_PRIVATE | MAP_FIXED)
            let uffd = try UserfaultFD()
            try uffd.register(stack, modes: .missing)
            let below = AddressRange(start: stack.start - UInt(page), count: page)
            let touch = try Touch.write(below.start + 16, 3)
            try uffd.expectFault(at: below.start, .write)
            try expectEqual(MappingAccount(holding: below.start).userfaultFlags, ["um"], "flags of what has grown")
            try uffd.zeropage(below)
            try touch.finish(with: 3)
            try uffd.unregister(AddressRange(start: below.start, end: stack.end))
            try expectEqual(Touch.load(stack.start), .byte(0), "the first page of the stack")
        },
        SelftestCase(
            "register-locked", "locked memory that is dropped all the same faults as missing again",
            requires: [.lockedPages(3), .missingFaults], covers: [.specialMappings]
        ) { context in
            let page = PageSize.base.bytes
            let memory = try Mapping(anonymous: 3 * page)
            try checked(RawMemory.lock(memory.range))
            let uffd = try UserfaultFD()
            try uffd.register(memory.range, modes: .missing)
            for index in 0..<3 { try expectEqual(Touch.store(memory.page(index).start, 5), .byte(5), "locked memory") }
            let refusal = try expectThrows(UserfaultError.self, "MADV_DONTNEED of locked memory is refused") {
                () throws(UserfaultError) in try memory.advise(.dontNeed)
            }
            try expectEqual(refusal.errno, .invalidArgument, "errno of MADV_DONTNEED")
            do { try memory.advise(.dontNeedLocked, memory.page(1)) } catch {
                return context.record("this kernel has no MADV_DONTNEED_LOCKED")
            }
            let touch = try Touch.read(memory.page(1).start)
            try uffd.expectFault(at: memory.page(1).start, [])
            try uffd.zeropage(memory.page(1))
            try touch.finish(with: 0)
            for index in [0, 2] { try expectEqual(Touch.load(memory.page(index).start), .byte(5), "what was kept") }
            try uffd.expectNoMessage("the neighbours are still there")
            _ = memory.release()
        },
    ]
}
