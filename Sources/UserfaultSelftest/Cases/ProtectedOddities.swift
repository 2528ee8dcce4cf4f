import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultFD

/// Protection of page table entries that are no ordinary pages, and of what other interfaces change.
enum ProtectedOddityCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-guard", on: [.anon, .shmem],
            "a guard region stays one under WRITEPROTECT, protected and unprotected",
            requires: [.writeProtectFaults], covers: [.guardRegions]
        ) { context in
            let area = try Area(context)
            area.fillView()
            try area.guardPage(1)
            let uffd = try UserfaultFD()
            try uffd.register(area.range, modes: .writeProtect)
            for mode in [UserfaultFD.Protection.protect, .unprotect] {
                try uffd.writeProtect(area.range, mode)
                try expectEqual(Touch.load(area.address(1)).signal, SIGSEGV, "signal from the guard page after \(mode)")
                try area.expectView(0)
            }
            try expectEqual(RawMemory.advise(area.page(1), .guardRemove), 0, "answer of MADV_GUARD_REMOVE")
            try expectEqual(Touch.store(area.address(1), 3), .byte(3), "a write where the guard was")
            try uffd.expectNoMessage("nothing is protected")
        },
        SelftestCase(
            "wp-clear-refs", on: [.anon, .shmem],
            "clearing soft-dirty bits through clear_refs leaves write-protection as it is, and a later write sets them",
            requires: [.writeProtectFaults, .pagemapProtection], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            area.fillView()
            let uffd = try UserfaultFD()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(0..<2), .protect)
            try context.clearSoftDirty()
            try area.expectProtected([0, 1], "after clear_refs")
            let touches = try (1..<3).map { try Touch.write(area.address($0), 1) }
            try uffd.expectFault(at: area.address(1), [.write, .writeProtect])
            try touches[1].finish(with: 1, "the write to a page that is not protected goes on")
            try uffd.writeProtect(area.page(1), .unprotect)
            try touches[0].finish(with: 1)
            try area.expectProtected([0], "after the writes")
            let dirty = try (0..<4).map { try PagemapEntry(of: area.address($0)).isSoftDirty }
            // Without CONFIG_MEM_SOFT_DIRTY the file takes the word, and no bit is ever set.
            guard dirty.contains(true) else { return context.record("this kernel has no soft-dirty bits") }
            try expectEqual(Array(dirty[1...2]), [true, true], "soft-dirty bits of the pages written since")
            try expectEqual(dirty[0], false, "soft-dirty bit of a page that was not written")
        },
        SelftestCase(
            "wp-huge-zero", on: [.anon],
            "the huge zero page is protected like any other page: a write waits, and makes a page of zeros",
            requires: [
                .writeProtectFaults, .pagemapProtection, .transparentHugePages,
                .file("/sys/kernel/mm/transparent_hugepage/use_zero_page"),
            ], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context, pages: Area.hugePageCount, alignment: Area.hugePageBytes)
            try area.view.advise(.hugePage)
            try expectEqual(Touch.load(area.address(3)), .byte(0), "a read")
            guard try PagemapEntry.entries(of: area.range).allSatisfy(\.isPresent) else {
                try context.skip(thisTime: "the kernel mapped no huge zero page")
            }
            let uffd = try UserfaultFD()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.range, .protect)
            try area.expectProtected(Array(0..<area.pageCount), "after protecting")
            let touch = try Touch.write(area.address(5), 7)
            try uffd.expectFault(at: area.address(5), [.write, .writeProtect])
            try touch.thread.waitAsleep()
            try uffd.writeProtect(area.page(5), .unprotect)
            try touch.finish(with: 7)
            try area.expectProtected(Array(0..<area.pageCount).filter { $0 != 5 }, "after one page was unprotected")
            for page in [0, 4, 6, area.pageCount - 1] { try area.expectZeroView(page) }
            try uffd.writeProtect(area.range, .unprotect)
            for page in [4, 6] {
                try Touch.write(area.address(page), 7).finish(with: 7, "the write to an unprotected page goes on")
            }
            try uffd.expectNoMessage("nothing is protected")
        },
        SelftestCase(
            "wp-medium-folio", on: [.anon],
            "protecting one page of a folio of 64 KiB protects that page alone, also when the folio is swapped out",
            requires: [
                .writeProtectFaults, .pagemapProtection, .swap,
                .setting(SystemSetting(path: "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled"), "madvise"),
            ], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context, pages: 64, alignment: 64 << 10)
            try area.view.advise(.hugePage)
            area.fillView()
            let uffd = try UserfaultFD()
            try uffd.register(area.range, modes: .writeProtect)
            let part = [5, 16, 17]
            for page in part { try uffd.writeProtect(area.page(page), .protect) }
            try area.expectProtected(part, "after protecting")
            for page in [4, 6, 15, 18] {
                try expectEqual(Touch.store(area.address(page), 1), .byte(1), "a write beside it")
            }
            for page in [4, 6, 15, 18] { Pattern.write(seed: 0, page: page, at: area.address(page), count: 8) }
            try area.swapOut(0..<64)
            try area.expectProtected(part, "while swapped out")
            for page in 0..<64 { try area.expectView(page, "brought back") }
            try area.expectProtected(part, "brought back")
            let touch = try Touch.write(area.address(16), 7)
            try uffd.expectFault(at: area.address(16), [.write, .writeProtect])
            try uffd.writeProtect(area.page(16), .unprotect)
            try touch.finish(with: 7)
            try area.expectProtected([5, 17], "after one was unprotected")
        },
        SelftestCase(
            "close-reading", on: [.anon, .shmem, .hugetlb],
            "a system call that waits for a missing page ends when another thread closes the userfaultfd, and so does that",
            requires: [.missingFaults, .kernelFaults], covers: [.release]
        ) { context in
            for access in [KernelAccess.processRead, .write] where access.isPossible {
                let area = try Area(context)
                let uffd = try UserfaultFD(options: .init(faults: .userAndKernelMode))
                try uffd.register(area.range, modes: .missing)
                let readers = try (0..<2).map { page in
                    try BackgroundCall { access.perform(area.address(page), count: 8) }
                }
                for _ in readers { _ = try uffd.expectMessage("the fault of \(access.rawValue)") }
                for reader in readers { try reader.thread.waitAsleep() }
                let raw = uffd.withUnsafeDescriptor { dup($0.rawValue) }
                try uffd.close()
                let closer = try BackgroundCall { close(raw) }
                try expectEqual(try closer.finish("close returns"), 0, "answer of close")
                for reader in readers {
                    try expectEqual(
                        try reader.finish("\(access.rawValue) returns"), .init(answer: 8, byte: 0), "what it has read")
                }
            }
        },
        SelftestCase(
            "scan-end", on: [.anon, .shmem],
            "PAGEMAP_SCAN of more than 512 regions says that it ended where it did",
            requires: [.writeProtectFaults, .features(.writeProtectAsync)], covers: [.asyncProtection]
        ) { context in
            let area = try Area(context, pages: 2 * 700)
            area.fillView()
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.range, .protect)
            for page in stride(from: 0, to: area.pageCount, by: 2) { _ = Touch.store(area.address(page), 1) }
            let answer = try RawScan.look.scan(area.range)
            try expectEqual(answer.regions, stride(from: 0, to: area.pageCount, by: 2).map { area.page($0) }, "regions")
            try expectEqual(answer.end, area.range.end, "where the scan says that it ended")
        },
        SelftestCase(
            "scan-exiting", "PAGEMAP_SCAN of a process that ends meanwhile ends too, with what it found or ESRCH",
            requires: [.descriptors(200), .features(.writeProtectAsync)], limit: .seconds(20), covers: [.endedProcess]
        ) { context in
            let memory = try Mapping(anonymous: 512 * PageSize.base.bytes).release()
            for page in 0..<512 { Touch.store(memory.start + UInt(page * PageSize.base.bytes), 1) }
            var ended = 0
            for _ in 0..<100 {
                let child = try Child([.pause])
                try child.waitPaused()
                let scan = try PagemapScan(process: child.processID)
                try child.resume()
                var isGone = false
                try Waiting.until("the scan finds nothing any more") {
                    do {
                        isGone = try scan.scan(memory, for: .init(all: .present, reported: .present)).regions.isEmpty
                    } catch let failure as PagemapScan.Failure {
                        try expectEqual(
                            failure.error.errno, .noSuchProcess, "errno of a scan of a process that has ended")
                        isGone = true
                    }
                    return isGone
                }
                ended += 1
                try child.finish()
            }
            context.record("\(ended) processes ended while they were scanned")
        },
    ]
}
