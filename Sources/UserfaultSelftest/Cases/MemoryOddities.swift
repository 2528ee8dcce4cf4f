import Glibc
import SystemPackage
import UserfaultFD

/// Memory that is sealed, guarded, given up or a virtual machine's, under the calls that other themes leave out.
enum MemoryOddityCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "seal-move", on: [.anon],
            "MOVE takes pages out of sealed memory and puts them there, and takes none of what cannot be written",
            requires: [.features(.move)], covers: [.specialMappings, .movedState, .moveErrors]
        ) { context in
            for (sealsSource, sealsDestination) in [(true, false), (false, true), (true, true)] {
                let source = try Area(context)
                let destination = try Area(context)
                let uffd = try UserfaultFD()
                source.fillView()
                for area in [source, destination] { try uffd.register(area.range, modes: .missing) }
                if sealsSource { try source.seal(source.range) }
                if sealsDestination { try destination.seal(destination.range) }
                let waiter = try Touch.read(destination.address(1))
                try uffd.expectFault(at: destination.address(1), [])
                try uffd.raw(.move, destination.range, source: source.range.start).expectDone(source.range.count)
                try waiter.finish(with: Pattern.byte(page: 1))
                for page in 0..<4 { try destination.expectView(page, "moved") }
                try source.expectUnmapped(0..<4, "its pages were moved")
                let missing = try Touch.read(source.address(2))
                try uffd.expectFault(at: source.address(2), [])
                try uffd.raw(.move, source.page(2), source: destination.address(2)).expectDone(source.pageSize.bytes)
                try missing.finish(with: Pattern.byte(page: 2), "the page that was moved back")
            }
            let (source, destination) = (try Area(context), try Area(context))
            let uffd = try destination.registered(.missing)
            source.fillView()
            try source.view.protect(.read)
            try source.seal(source.range)
            try expectEqual(
                uffd.raw(.move, destination.range, source: source.range.start), .failed(.invalidArgument),
                "MOVE of sealed memory that cannot be written")
            for page in 0..<4 { try source.expectView(page, "not moved") }
        },
        SelftestCase(
            "wp-lazily-freed", on: [.anon],
            "a protected page that MADV_FREE gives up is there and protected, or gone with its protection",
            requires: [.writeProtectFaults, .pagemapProtection], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            area.fillView()
            let uffd = try area.registered(.writeProtect)
            try uffd.writeProtect(area.range, .protect)
            try area.view.advise(.free, area.pages(0..<2))
            try area.expectProtected([0, 1, 2, 3], "while nobody needs the memory")
            try area.view.advise(.pageOut, area.pages(0..<2))
            for page in 0..<2 {
                let entry = try PagemapEntry(of: area.address(page))
                let isThere = entry.isPresent || entry.isSwapped
                try expectEqual(
                    entry.isProtected, isThere, "whether page \(page) is protected, that is there: \(isThere)")
                if !isThere { context.record("page \(page) was freed") }
                let touch = try Touch.write(area.address(page) + 8, 7)
                if isThere {
                    try uffd.expectFault(at: area.address(page), [.write, .writeProtect])
                    try touch.thread.waitAsleep()
                    try uffd.writeProtect(area.page(page), .unprotect)
                }
                try touch.finish(with: 7)
                let first: UInt8 = isThere ? Pattern.byte(page: page) : 0
                try expectEqual(Touch.load(area.address(page)), .byte(first), "the byte before what was written")
            }
            for page in 2..<4 { try area.expectView(page, "a page that was not given up") }
            try area.expectProtected([2, 3], "in the end")
            try uffd.expectNoMessage("all is resolved")
        },
        SelftestCase(
            "scan-lazily-freed", on: [.anon],
            "a page that reclaim takes after MADV_FREE counts as written: it holds zeros now",
            requires: [.writeProtectFaults, .features(.writeProtectAsync)], covers: [.asyncProtection]
        ) { context in
            let area = try Area(context)
            area.fillView()
            let uffd = try area.registered(.writeProtect, features: .writeProtectAsync)
            try uffd.writeProtect(area.range, .protect)
            try expectEqual(RawScan.look.scan(area.range).regions, [], "written before anything was given up")
            try area.view.advise(.free, area.pages(1..<3))
            try expectEqual(RawScan.look.scan(area.range).regions, [], "written while nobody needs the memory")
            try area.view.advise(.pageOut, area.pages(1..<3))
            for page in 1..<3 where try PagemapEntry(of: area.address(page)).isPresent {
                try context.skip(thisTime: "the kernel kept what was given up")
            }
            try expectEqual(RawScan.take.scan(area.range).regions, [area.pages(1..<3)], "written after it was freed")
            for page in 1..<3 { try area.expectZeroView(page) }
            try expectEqual(RawScan.look.scan(area.range).regions, [], "written after it was taken and read")
            try expectEqual(Touch.store(area.address(2), 1), .byte(1), "a write")
            try expectEqual(RawScan.take.scan(area.range).regions, [area.page(2)], "written after the write")
        },
        SelftestCase(
            "scan-guard", on: [.anon, .shmem],
            "PAGEMAP_SCAN that protects leaves guard pages what they are, and finds what is written beside them",
            requires: [.writeProtectFaults, .features(.writeProtectAsync)],
            covers: [.guardRegions, .asyncProtection]
        ) { context in
            let area = try Area(context)
            area.fillView()
            try area.guardPage(1)
            let uffd = try area.registered(.writeProtect, features: .writeProtectAsync)
            for round in 0..<2 {
                _ = try RawScan.take.scan(area.range)
                try expectEqual(
                    Touch.load(area.address(1)).signal, SIGSEGV, "signal from the guard page after scan \(round)")
                let written = try RawScan.look.scan(area.range).regions
                try expectOne(of: [[], [area.page(1)]], written, "written right after scan \(round)")
                context.record("a guard page counts as written: \(!written.isEmpty)")
                try expectEqual(Touch.store(area.address(2), 1), .byte(1), "a write beside it")
                try expectOne(
                    of: [[area.page(2)], [area.pages(1..<3)]], RawScan.look.scan(area.range).regions, "written then")
            }
            try area.view.advise(.guardRemove, area.page(1))
            try expectEqual(Touch.store(area.address(1), 3), .byte(3), "a write where the guard was")
            try expectEqual(RawScan.take.scan(area.range).regions, [area.pages(1..<3)], "written in the end")
            for page in [0, 3] { try area.expectView(page) }
            try uffd.expectNoMessage("asynchronous faults make none")
        },
        SelftestCase(
            "rwp-guard", on: [.anon, .shmem],
            "a guard page stays one under RWPROTECT, protected and unprotected",
            requires: [.features(.readWriteProtect)], covers: [.guardRegions, .readWriteProtect]
        ) { context in
            let area = try Area(context)
            area.fillView()
            try area.guardPage(1)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            try uffd.register(area.range, modes: .readWriteProtect)
            try uffd.rwProtect(area.range, .protect)
            // On a thread of its own: an access that waits for ever is a failure, and says so.
            let guarded = try Touch.read(area.address(1))
            try expectEqual(
                guarded.finish("the access of the guard page ends").signal, SIGSEGV,
                "signal from the guard page, protected")
            try uffd.expectNoMessage("a guard page is no protected page")
            let touch = try Touch.read(area.address(2))
            try uffd.expectFault(at: area.address(2), .readWriteProtect)
            try uffd.rwProtect(area.range, .unprotect)
            try touch.finish(with: Pattern.byte(page: 2))
            try expectEqual(Touch.load(area.address(1)).signal, SIGSEGV, "signal from the guard page, unprotected")
            try area.view.advise(.guardRemove, area.page(1))
            try expectEqual(Touch.store(area.address(1), 3), .byte(3), "a write where the guard was")
            for page in [0, 2, 3] { try area.expectView(page) }
        },
        SelftestCase(
            "rwp-swapoff", on: [.anon, .shmem, .shmemPrivate],
            "swapoff brings read-write-protected pages back protected, and no others",
            requires: [.features(.readWriteProtect), .ownSwap], covers: [.readWriteProtect]
        ) { context in
            let area = try Area(context)
            area.fillView()
            let uffd = try area.registered(.readWriteProtect, features: .readWriteProtect)
            try uffd.rwProtect(area.pages(1..<3), .protect)
            try area.swapOut(0..<4)
            // Of shared memory, nothing of the page table is left to keep the protection in.
            let protected = area.memory.isPrivate ? [1, 2] : []
            try area.expectProtected(protected, "while swapped out")
            try context.turnSwapOff()
            guard try !area.hasSwappedPages() else { try context.skip(thisTime: "pages went to other swap space") }
            try area.expectProtected(protected, "after swapoff")
            for page in 0..<4 {
                let touch = try Touch.read(area.address(page))
                if protected.contains(page) {
                    try uffd.expectFault(at: area.address(page), .readWriteProtect)
                    try uffd.rwProtect(area.page(page), .unprotect)
                }
                try touch.finish(with: Pattern.byte(page: page), "the read of page \(page) goes on")
            }
            for page in 0..<4 { try area.expectView(page, "after swapoff") }
            try uffd.expectNoMessage("all is resolved")
        },
        SelftestCase(
            "register-guest-memfd",
            "REGISTER refuses memory of KVM's own kind of file, or has its minor faults served",
            requires: [.file("/dev/kvm"), .root], covers: [.registerErrors]
        ) { context in
            let count = 4 * PageSize.base.bytes
            let answer = RawMemory.guestFile(count: count)
            guard answer >= 0 else {
                try context.skip(
                    kernel: "no guest_memfd that can be mapped: \(Errno(rawValue: -answer)) (KVM of Linux 6.18)")
            }
            let file = FileDescriptor(rawValue: answer)
            let alias = try Mapping(file: file, count: count)
            let view = try Mapping(file: file, count: count)
            for page in 0..<4 { Touch.store(alias.page(page).start, UInt8(page)) }
            let uffd = try UserfaultFD()
            for modes in [.missing, .writeProtect, .minor] as [UserfaultFD.RegisterModes] {
                do throws(UserfaultError) {
                    try uffd.register(view.range, modes: modes)
                } catch {
                    try expectEqual(error.errno, .invalidArgument, "errno of REGISTER of guest_memfd for \(modes)")
                    continue
                }
                try expectEqual(modes, .minor, "what guest_memfd can be registered for")
                context.record("this kernel has minor faults of guest_memfd")
                let touch = try Touch.read(view.page(2).start)
                try uffd.expectFault(at: view.page(2).start, .minor)
                try uffd.raw(.continue, view.page(2)).expectDone(PageSize.base.bytes)
                try touch.finish(with: 2)
                try uffd.unregister(view.range)
            }
            for page in 0..<4 { try expectEqual(Touch.load(view.page(page).start), .byte(UInt8(page)), "guest memory") }
            try uffd.expectNoMessage("nothing is registered any more")
        },
    ]
}
