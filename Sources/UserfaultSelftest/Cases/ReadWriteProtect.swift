import CSelftestSupport
import SystemPackage
import UserfaultFD

/// Read-write-protection: upstream's tests, each under its name.
enum ReadWriteProtectCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "rwp-async", on: .all,
            "with RWP_ASYNC an access to a protected page restores it, without a message and with its contents",
            requires: [.features([.readWriteProtect, .readWriteProtectAsync])],
            covers: [.upstream]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: [.readWriteProtect, .readWriteProtectAsync])
            area.fillView(seed: 1)
            try uffd.register(area.range, modes: .readWriteProtect)
            try uffd.rwProtect(area.pages(1..<4), .protect)
            try area.expectProtected([1, 2, 3], "before any access")
            try area.expectView(0, seed: 1)
            try area.expectView(1, seed: 1, "read through the protection")
            try area.expectProtected([2, 3], "after reading page 1")
            try expectEqual(Touch.store(area.address(2), 9), .byte(9), "a write")
            try area.expectProtected([3], "after writing page 2")
            try expectEqual(Touch.load(area.address(2)), .byte(9), "the byte written")
            try uffd.expectNoMessage("asynchronous faults make none")
            try uffd.expectWaiters(pending: 0, total: 0)
        },
        SelftestCase(
            "rwp-sync", on: .all,
            "a read of a protected page is an RWP fault, a write an RWP|WRITE fault; the contents are kept",
            requires: [.features(.readWriteProtect)], covers: [.upstream]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            area.fillView()
            try uffd.register(area.range, modes: .readWriteProtect)
            try area.expectModes(0, .readWriteProtect)
            try uffd.rwProtect(area.pages(1..<3), .protect)
            try area.expectProtected([1, 2], "before any access")
            for page in [0, 3] {
                try expectEqual(Touch.store(area.address(page), 1), .byte(1), "a write beside the range")
            }
            try uffd.expectNoMessage("the neighbours are not protected")

            let read = try Touch.read(area.address(1))
            try uffd.expectFault(at: area.address(1), .readWriteProtect)
            let write = try Touch.write(area.address(2), 7)
            try uffd.expectFault(at: area.address(2), [.write, .readWriteProtect])
            try read.thread.waitAsleep()
            try write.thread.waitAsleep()
            try expect(try PagemapEntry(of: area.address(1)).isPresent, "a protected page stays in memory")

            // Without a wake-up both go on waiting; then each is let go by its own.
            try expectEqual(uffd.raw(.readWriteProtect, area.page(1), mode: 2), 0, "answer of unprotecting, DONTWAKE")
            try area.expectProtected([2], "after unprotecting page 1")
            try read.thread.expectStillAsleep("DONTWAKE")
            try uffd.wake(area.page(1))
            try read.finish(with: Pattern.byte(page: 1))
            try write.thread.expectStillAsleep("its page is protected still")
            // Woken without anything done, the write faults anew.
            try uffd.wake(area.page(2))
            try uffd.expectFault(at: area.address(2), [.write, .readWriteProtect])
            try uffd.rwProtect(area.page(2), .unprotect)
            try write.finish(with: 7)
            try uffd.expectNoMessage("all is resolved")
            try area.expectProtected([], "at the end")
            Pattern.write(seed: 0, page: 2, at: area.address(2), count: 8)
            try area.expectView(1)
            try area.expectView(2)
        },
        SelftestCase(
            "rwp-pagemap", on: .all,
            "PAGE_IS_ACCESSED tells exactly the pages that were touched since they were protected",
            requires: [.features([.readWriteProtect, .readWriteProtectAsync])],
            covers: [.upstream]
        ) { context in
            let area = try Area(context, pages: 4)
            let uffd = try UserfaultFD(features: [.readWriteProtect, .readWriteProtectAsync])
            area.fillView()
            try uffd.register(area.range, modes: .readWriteProtect)
            let scan = try PagemapScan()
            let accessed = PagemapScan.Query(all: .accessed, reported: .accessed)
            let all = try scan.scan(area.range, for: accessed).regions
            try expectEqual(all.map(\.range), [area.range], "accessed before the protection")
            try uffd.rwProtect(area.range, .protect)
            try expectEqual(try scan.scan(area.range, for: accessed).regions, [], "accessed after the protection")
            _ = Touch.load(area.address(0))
            _ = Touch.store(area.address(1), 1)
            _ = Touch.load(area.address(3))
            let touched = try scan.scan(area.range, for: accessed)
            try expectEqual(touched.regions.map(\.range), [area.pages(0..<2), area.page(3)], "accessed pages")
            try expectEqual(touched.regions.map(\.categories), [.accessed, .accessed], "their categories")
            try expectEqual(touched.end, area.range.end, "where the scan ended")
        },
        SelftestCase(
            "rwp-mprotect", on: .all,
            "read-write-protection outlasts mprotect to PROT_NONE and back",
            requires: [.features([.readWriteProtect, .readWriteProtectAsync])],
            covers: [.upstream]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: [.readWriteProtect, .readWriteProtectAsync])
            area.fillView()
            try uffd.register(area.range, modes: .readWriteProtect)
            try uffd.rwProtect(area.pages(1..<3), .protect)
            for protection in [MemoryProtection.none, .read, .readWrite] {
                try area.view.protect(protection)
                try area.expectProtected([1, 2], "after mprotect to \(protection)")
            }
            for page in 0..<4 { try area.expectView(page) }
            try area.expectProtected([], "after reading all")
            let query = PagemapScan.Query(all: .accessed, inverted: .accessed, reported: .accessed)
            try expectEqual(try PagemapScan().scan(area.range, for: query).regions, [], "pages not accessed")
            for page in 0..<4 { try expectEqual(Touch.store(area.address(page), 3), .byte(3), "a write afterwards") }
        },
        SelftestCase(
            "rwp-gup", on: .all,
            "the kernel's own access to a protected page restores it with RWP_ASYNC",
            requires: [.features([.readWriteProtect, .readWriteProtectAsync])],
            covers: [.upstream]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: [.readWriteProtect, .readWriteProtectAsync])
            area.fillView()
            try uffd.register(area.range, modes: .readWriteProtect)
            try uffd.rwProtect(area.pages(1..<3), .protect)
            var byte: UInt8 = 0
            try expectEqual(css_splice_byte(area.address(1), &byte), 1, "bytes that vmsplice takes of the page")
            try expectEqual(byte, Pattern.byte(page: 1), "the byte taken")
            try area.expectProtected([2], "after vmsplice")
        },
        SelftestCase(
            "rwp-async-toggle", on: .all,
            "SET_MODE turns RWP_ASYNC off and on again: messages come only while it is off",
            requires: [.features([.readWriteProtect, .readWriteProtectAsync])],
            covers: [.upstream]
        ) { context in
            let area = try Area(context)
            let descriptor = Handler.Descriptor(
                try UserfaultFD(features: [.readWriteProtect, .readWriteProtectAsync]))
            area.fillView()
            try descriptor.uffd.register(area.range, modes: .readWriteProtect)
            try descriptor.uffd.rwProtect(area.range, .protect)
            for page in 0..<2 { try area.expectView(page) }
            try descriptor.uffd.setMode(disable: .readWriteProtectAsync)
            try area.expectProtected([2, 3], "after turning RWP_ASYNC off")
            let handler = try clearing(area, descriptor)
            for page in 2..<4 {
                let byte = Pattern.byte(page: page)
                try Touch.read(area.address(page)).finish(with: byte)
            }
            try expectEqual(try handler.stop().readWriteProtect, 2, "RWP faults while RWP_ASYNC was off")
            try descriptor.uffd.setMode(enable: .readWriteProtectAsync)
            try descriptor.uffd.rwProtect(area.range, .protect)
            for page in 0..<4 { try area.expectView(page) }
            try area.expectProtected([], "after reading all")
            try descriptor.uffd.expectNoMessage("RWP_ASYNC is on again")
        },
        SelftestCase(
            "rwp-close", on: .all,
            "closing the userfaultfd makes protected pages accessible, with their contents",
            requires: [.features(.readWriteProtect)], covers: [.upstream, .release]
        ) { context in
            let area = try Area(context)
            area.fillView()
            let uffd = try area.registered(.readWriteProtect, features: .readWriteProtect)
            try uffd.rwProtect(area.range, .protect)
            let touches = [try Touch.read(area.address(1)), try Touch.write(area.address(2), 7)]
            try uffd.waitBlocked(2)
            for touch in touches { try touch.thread.waitAsleep() }
            try uffd.close()
            try touches[0].finish(with: Pattern.byte(page: 1))
            try touches[1].finish(with: 7)
            try area.expectProtected([], "after closing")
            for page in [0, 1, 3] { try area.expectView(page) }
            for page in 0..<4 { try expectEqual(Touch.store(area.address(page), 3), .byte(3), "a write afterwards") }
        },
        SelftestCase(
            "rwp-fork", on: .all,
            "with EVENT_FORK the child's pages are protected too, and its faults come to its own userfaultfd",
            requires: [.features([.readWriteProtect, .eventFork]), .root],
            covers: [.upstream]
        ) { context in
            let area = try Area(context)
            let descriptor = Handler.Descriptor(try UserfaultFD(features: [.readWriteProtect, .eventFork]))
            area.fillView()
            try descriptor.uffd.register(area.range, modes: .readWriteProtect)
            try descriptor.uffd.rwProtect(area.pages(1..<3), .protect)
            let steps: [Child.Step] = [
                .pagemap(area.address(0)), .pagemap(area.address(1)), .pagemap(area.address(2)), .load(area.address(0)),
                .pause, .load(area.address(1)), .pagemap(area.address(1)), .pagemap(area.address(2)),
            ]
            let child = try Child.reported(by: descriptor, steps)
            let own = child.descriptor!
            try child.waitPaused()
            try expectEqual(
                try (0..<3).map { try child.pagemap($0).isProtected }, [false, true, true], "protection in the child")
            try child.resume()
            try own.uffd.expectFault(at: area.address(1), .readWriteProtect)
            try own.uffd.rwProtect(area.page(1), .unprotect)
            let byte = Int64(Pattern.byte(page: 1))
            try expectEqual(try child.finish()[5], byte, "byte that the child reads")
            try expect(!child.pagemap(6).isProtected, "page 1 accessible in the child")
            try expect(child.pagemap(7).isProtected, "page 2 protected in the child")
            try area.expectProtected([1, 2], "in the parent")
            try descriptor.uffd.expectNoMessage("the fault is the child's")

            let touch = try Touch.read(area.address(1))
            try descriptor.uffd.expectFault(at: area.address(1), .readWriteProtect)
            try descriptor.uffd.rwProtect(area.page(1), .unprotect)
            try touch.finish(with: UInt8(byte))
        },
        SelftestCase(
            "rwp-fork-pin", on: [.anon],
            "a fork that copies a pinned page at once keeps the child's protection with EVENT_FORK",
            requires: [.features([.readWriteProtect, .readWriteProtectAsync, .eventFork]), .root], covers: [.upstream]
        ) { context in
            let area = try Area(context)
            let descriptor = Handler.Descriptor(
                try UserfaultFD(features: [.readWriteProtect, .readWriteProtectAsync, .eventFork]))
            area.fillView()
            let pin = try Pin(area.page(1))
            try descriptor.uffd.register(area.range, modes: .readWriteProtect)
            try descriptor.uffd.rwProtect(area.pages(1..<3), .protect)
            let address = area.address(1)
            let child = try Child.reported(
                by: descriptor, [.pagemap(address), .load(address), .pagemap(address), .pagemap(area.address(2))])
            let byte = Int64(Pattern.byte(page: 1))
            try expectEqual(try child.finish()[1], byte, "byte that the child reads")
            try expect(child.pagemap(0).isProtected, "the copied page protected in the child")
            try expect(!child.pagemap(2).isProtected, "the copied page restored by the child's read")
            try expect(child.pagemap(3).isProtected, "the other page protected in the child")
            try area.expectProtected([1, 2], "in the parent")
            try pin.release()
        },
        SelftestCase(
            "rwp-swap-cow", on: [.anon],
            "a protected page that was swapped out and is shared with a child is an RWP fault when it is written",
            requires: [.features(.readWriteProtect), .swap], covers: [.upstream]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            area.fillView()
            try uffd.register(area.range, modes: .readWriteProtect)
            try uffd.rwProtect(area.pages(1..<3), .protect)
            try area.swapOut(1..<3)
            try area.expectProtected([1, 2], "while swapped out")
            let child = try Child([.pause, .load(area.address(1)), .load(area.address(2))])
            try child.waitPaused()
            let touch = try Touch.write(area.address(1), 7)
            try uffd.expectFault(at: area.address(1), [.write, .readWriteProtect])
            try uffd.rwProtect(area.page(1), .unprotect)
            try touch.finish(with: 7)
            try area.expectProtected([2], "after the write")
            try child.resume()
            let bytes = (1..<3).map { Int64(Pattern.byte(page: $0)) }
            try expectEqual(Array(try child.finish()[1...]), bytes, "bytes that the child reads")
        },
        SelftestCase(
            "rwp-wp-exclusive", on: .all,
            "WP and RWP cannot be registered together: EINVAL, and nothing is registered",
            requires: [.features(.readWriteProtect), .writeProtectFaults],
            covers: [.upstream]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .readWriteProtect)
            for modes: UserfaultFD.RegisterModes in [
                [.writeProtect, .readWriteProtect], [.missing, .writeProtect, .readWriteProtect],
            ] {
                try expectEqual(uffd.rawRegister(area.range, modes), .refused(.invalidArgument), "REGISTER \(modes)")
                try area.expectModes(0, [], "after the refusal")
            }
        },
    ]

    /// A handler that lifts the protection of each page that is touched.
    static func clearing(_ area: Area, _ descriptor: Handler.Descriptor) throws -> Handler {
        try Handler(descriptor) { fault in
            try expectEqual(fault.kind, .readWriteProtect, "kind of the fault")
            try descriptor.uffd.rwProtect(fault.page(size: area.pageSize), .unprotect)
        }
    }
}
