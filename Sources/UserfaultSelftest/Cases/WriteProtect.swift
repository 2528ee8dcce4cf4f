import Glibc
import SystemPackage
import UserfaultFD

/// What WRITEPROTECT protects, which accesses it stops, and whom lifting it lets go.
enum WriteProtectCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-fault", on: .all,
            "a write to a protected page is one WRITE|WP fault, and changes nothing until the protection is lifted",
            requires: [.writeProtectFaults], covers: [.protectionSurvives, .waking]
        ) { context in
            let area = try Area(context, offset: 1)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            try area.expectProtected([1, 2], "after protecting")

            let touch = try Touch.write(area.address(1), 0xEE)
            try uffd.expectFault(at: area.address(1), [.write, .writeProtect])
            try touch.thread.waitAsleep()
            try uffd.expectWaiters(pending: 0, total: 1)
            try area.expectView(1, "contents while the write waits")
            try area.expectProtected([1, 2], "while the write waits")

            // Woken with nothing done, it faults anew; unprotected without a wake-up, it waits on.
            try uffd.wake(area.page(2))
            try touch.thread.expectStillAsleep("another page was woken")
            try uffd.wake(area.page(1))
            try uffd.expectFault(at: area.address(1), [.write, .writeProtect])
            try touch.thread.waitAsleep()
            try uffd.writeProtect(area.page(1), .unprotectWithoutWaking)
            try area.expectProtected([2], "after unprotecting with DONTWAKE")
            try touch.thread.expectStillAsleep("DONTWAKE")
            try uffd.expectWaiters(pending: 0, total: 1)
            try uffd.wake(area.page(1))
            try touch.finish(with: 0xEE)
            try uffd.expectNoMessage("the write is done")
            try expectEqual(Touch.load(area.address(1)), .byte(0xEE), "the byte written")
            if area.memory.isPrivate == false { try expectEqual(try area.readFile(1)[0], 0xEE, "the byte in the file") }
            Pattern.write(seed: 0, page: 1, at: area.address(1), count: 8)
            for page in 0..<4 { try area.expectView(page) }
            try area.expectProtected([2], "at the end")
        },
        SelftestCase(
            "wp-range", on: .all,
            "WRITEPROTECT protects and unprotects exactly the pages of its range",
            requires: [.writeProtectFaults], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context, pages: context.memory.isHugetlb ? 4 : 12)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try area.expectProtected([], "after registering")
            let count = area.pageCount
            try uffd.writeProtect(area.range, .protect)
            try area.expectProtected(Array(0..<count), "after protecting all")
            try uffd.writeProtect(area.pages(1..<count - 1), .unprotect)
            try area.expectProtected([0, count - 1], "after unprotecting the middle")
            try uffd.writeProtect(area.page(2), .protect)
            try uffd.writeProtect(area.page(2), .protect)
            try area.expectProtected([0, 2, count - 1], "after protecting one twice")
            // By access, too: where the bit does not show, that is the only way to see.
            for page in 0..<count {
                let isProtected = [0, 2, count - 1].contains(page)
                let touch = try Touch.write(area.address(page), 1)
                if isProtected {
                    try uffd.expectFault(at: area.address(page), [.write, .writeProtect])
                    try uffd.writeProtect(area.page(page), .unprotect)
                }
                try touch.finish(with: 1)
            }
            try uffd.writeProtect(area.range, .unprotect)
            try uffd.expectNoMessage("nothing is protected any more")
            try area.expectProtected([], "at the end")
        },
        SelftestCase(
            "wp-read", on: .all,
            "reads of protected pages, mapped or dropped, by user or kernel, make no fault and leave the protection",
            requires: [.writeProtectFaults], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.range, .protect)
            var byte: UInt8 = 0
            for page in 0..<4 {
                try area.expectView(page)
                try expectEqual(ProcessMemory.read(area.address(page), &byte), 1, "bytes that the kernel reads")
                try expectEqual(byte, Pattern.byte(page: page), "the byte that the kernel reads")
            }
            try area.expectProtected([0, 1, 2, 3], "after reads")
            if !area.memory.isPrivate {
                try area.zapView(area.pages(1..<3))
                for page in 1..<3 { try area.expectView(page, "read in anew") }
                try area.expectProtected([0, 1, 2, 3], "after dropping and reading")
            }
            try uffd.expectNoMessage("nothing was written")
        },
        SelftestCase(
            "wp-kernel-write", on: .all,
            "a write by the kernel to a protected page fails where only user faults are handled, and writes nothing",
            requires: [.writeProtectFaults], covers: [.protectionSurvives, .kernelFaults]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            guard !uffd.handlesKernelFaults else {
                try context.skip(kernel: "this kernel cannot leave faults of the kernel out")
            }
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            try expectEqual(ProcessMemory.write(area.address(1), 0xEE), -14, "answer of process_vm_writev (EFAULT)")
            // Even where the kernel may override what a mapping forbids.
            let forced = KernelAccess.memoryWrite.perform(area.address(1), count: 1).answer
            if forced == -Int(EROFS) {
                context.record("not tried: a write of /proc/self/mem, because /proc is mounted read-only")
            } else {
                try expectOne(
                    of: [-Int(EIO), -Int(EFAULT)], forced, "answer of writing /proc/self/mem (EIO or EFAULT)")
            }
            try area.expectView(1)
            try area.expectProtected([1, 2], "after writes that were refused")
            try uffd.expectNoMessage("faults of the kernel are not handled")
            try uffd.writeProtect(area.page(1), .unprotect)
            try expectEqual(ProcessMemory.write(area.address(1), 0xEE), 1, "answer of process_vm_writev, unprotected")
            try expectEqual(Touch.load(area.address(1)), .byte(0xEE), "the byte written")
        },
        SelftestCase(
            "wp-kernel-write-handled", on: .all,
            "a write by the kernel to a protected page is a WP fault where kernel faults are handled",
            requires: [.writeProtectFaults, .kernelFaults], covers: [.protectionSurvives, .kernelFaults]
        ) { context in
            try ProcessMemory.expectPossible()
            let area = try Area(context)
            let uffd = try UserfaultFD(options: .init(faults: .userAndKernelMode))
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            let call = try BackgroundCall { try ProcessMemory.write(area.address(1), 0xEE) }
            try uffd.expectFault(at: area.address(1), [.write, .writeProtect])
            try call.waitBlocked()
            try area.expectView(1, "contents while the kernel's write waits")
            try uffd.writeProtect(area.page(1), .unprotect)
            try expectEqual(try call.finish(), 1, "bytes written by the kernel")
            try expectEqual(Touch.load(area.address(1)), .byte(0xEE), "the byte written")
            try area.expectProtected([2], "after the kernel's write")
            try uffd.expectNoMessage("one write makes one message")
        },
        SelftestCase(
            "wp-waiters", on: .all,
            "lifting the protection lets go of all who wait in its range and of nobody beside it; protecting wakes nobody",
            requires: [.threads(10), .writeProtectFaults], covers: [.protectionSurvives, .waking]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.range, .protect)
            // Two on page 1, one on each of the others.
            let touches = try [0, 1, 1, 2, 3].enumerated().map { index, page in
                let touch = try Touch.write(area.address(page) + UInt(index), UInt8(0xA0 + index))
                try uffd.expectFault(at: area.address(page), [.write, .writeProtect])
                try touch.thread.waitAsleep()
                return touch
            }
            // Once more, and an error: neither wakes anybody.
            try uffd.writeProtect(area.range, .protect)
            try expectEqual(
                uffd.raw(.writeProtect, area.range, mode: 3), Errno.invalidArgument.rawValue, "errno of WP|DONTWAKE")
            for touch in touches { try touch.thread.expectStillAsleep("protecting wakes nobody") }
            try uffd.expectWaiters(pending: 0, total: 5)

            try uffd.writeProtect(area.pages(1..<3), .unprotect)
            for (index, touch) in touches.enumerated() where (1...3).contains(index) {
                try touch.finish(with: UInt8(0xA0 + index))
            }
            try uffd.expectWaiters(pending: 0, total: 2)
            for touch in [touches[0], touches[4]] { try touch.thread.expectStillAsleep("its page is protected still") }
            try uffd.writeProtect(area.range, .unprotect)
            try touches[0].finish(with: 0xA0)
            try touches[4].finish(with: 0xA4)
            try uffd.expectNoMessage("all have gone on")
        },
        SelftestCase(
            "wp-one-mapping", on: .pageCache.filter { !$0.isPrivate },
            "protection belongs to one mapping: stores through another go on, and are seen through the protected one",
            requires: [.writeProtectFaults], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context, offset: 1)
            let uffd = try UserfaultFD()
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.range, .protect)
            try area.fillFile(1, seed: 5)
            try area.expectView(1, seed: 5, "what was stored through the alias")
            try area.expectProtected([0, 1, 2, 3], "after a store through the alias")
            try expect(!PagemapEntry(of: area.aliasAddress(1)).isProtected, "the alias is not protected")
            try uffd.expectNoMessage("the alias is not registered")
        },
        SelftestCase(
            "wp-private-copy", on: .pageCache.filter(\.isPrivate),
            "a write to a protected page of a private mapping faults first, then copies: the file keeps its bytes",
            requires: [.writeProtectFaults], covers: [.privateStores, .protectionSurvives]
        ) { context in
            let area = try Area(context, offset: 1)
            let uffd = try UserfaultFD()
            try area.fillFile()
            for page in 0..<4 { try area.expectView(page) }
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<3), .protect)
            try area.expectProtected([1, 2], "on the file's pages")
            let touch = try Touch.write(area.address(1), 0xEE)
            try uffd.expectFault(at: area.address(1), [.write, .writeProtect])
            try expect(try PagemapEntry(of: area.address(1)).isFile, "the page is the file's while the write waits")
            try uffd.writeProtect(area.page(1), .unprotect)
            try touch.finish(with: 0xEE)
            try uffd.expectNoMessage("the copy makes no message of its own")
            try expect(!PagemapEntry(of: area.address(1)).isFile, "the page is the mapping's own after the write")
            try area.expectProtected([2], "after the write")
            try area.expectFile(1)
            try area.expectStored(1)

            // The private page can be protected too.
            try uffd.writeProtect(area.page(1), .protect)
            let again = try Touch.write(area.address(1), 0xDD)
            try uffd.expectFault(at: area.address(1), [.write, .writeProtect])
            try uffd.writeProtect(area.page(1), .unprotect)
            try again.finish(with: 0xDD)
            try area.expectFile(1)
        },
        SelftestCase(
            "wp-release", on: .all,
            "unregistering, like closing, lifts all protection, also from pages that are not mapped",
            requires: [.writeProtectFaults], covers: [.release, .protectionSurvives, .unregister]
        ) { context in
            for closes in [false, true] {
                let area = try Area(context)
                area.fillView()
                let uffd = try area.registered(.writeProtect)
                try uffd.writeProtect(area.range, .protect)
                if !area.memory.isPrivate { try area.zapView(area.page(2)) }
                let touch = try Touch.write(area.address(1), 0xEE)
                try uffd.expectFault(at: area.address(1), [.write, .writeProtect])
                try touch.thread.waitAsleep()
                if closes {
                    try uffd.close()
                } else {
                    try uffd.unregister(area.range)
                    // Whoever waits for a protection is not woken by that.
                    try touch.thread.expectStillAsleep("UNREGISTER wakes no WP waiter")
                    try uffd.wake(area.range)
                }
                try touch.finish(with: 0xEE)
                // Linux 5.10 leaves the bits behind, where they do nothing.
                try area.expectProtected([], closes ? "after closing" : "after unregistering")
                for page in [0, 2, 3] {
                    try area.expectView(page)
                    // On a thread of its own: such a write may fault without end.
                    try Touch.write(area.address(page), 1).finish(with: 1, "the write to page \(page) goes on")
                }
            }
        },
    ]
}
