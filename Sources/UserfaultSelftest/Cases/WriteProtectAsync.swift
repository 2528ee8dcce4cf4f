import CSelftestSupport
import CUserfaultFD
import Glibc
import SystemPackage
import UserfaultFD

/// WP_ASYNC and PAGEMAP_SCAN: writes that are tracked and stop nobody.
enum WriteProtectAsyncCases: CaseTheme {
    private static let requires: [Requirement] = [.writeProtectFaults, .features(.writeProtectAsync)]

    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-async", on: .all,
            "with WP_ASYNC a write lifts the protection of its page by itself, without a message",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.range, .protect)
            for page in 0..<4 { try area.expectView(page) }
            try area.expectProtected([0, 1, 2, 3], "after reads")
            try expectEqual(Touch.store(area.address(1), 0xEE), .byte(0xEE), "a write")
            try area.expectProtected([0, 2, 3], "after the write")
            try expectEqual(ProcessMemory.write(area.address(2), 0xDD), 1, "bytes written by the kernel")
            try area.expectProtected([0, 3], "after the kernel's write")
            try expectEqual(Touch.load(area.address(1)), .byte(0xEE), "the byte written")
            try expectEqual(Touch.load(area.address(2)), .byte(0xDD), "the byte written by the kernel")
            if area.memory != .anon {
                try area.zapView()
                try area.expectProtected([0, 3], "after dropping all")
                try expectEqual(Touch.store(area.address(3), 1), .byte(1), "a write to a dropped page")
                try area.expectProtected([0], "after that")
            }
            try uffd.expectNoMessage("asynchronous faults make none")
            try uffd.expectWaiters(pending: 0, total: 0)
        },
        SelftestCase(
            "wp-async-empty", on: [.anon],
            "WP_ASYNC brings WP_UNPOPULATED along: an empty page is tracked too",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            try expectEqual(
                try uffd.status().features, [.writeProtectAsync, .writeProtectUnpopulated], "features in fdinfo")
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(1..<4), .protect)
            try area.expectProtected([1, 2, 3], "while empty")
            try expectEqual(Touch.store(area.address(1), 1), .byte(1), "a write")
            _ = Touch.load(area.address(2))
            try area.expectProtected([2, 3], "after a write and a read")
            try uffd.expectNoMessage("asynchronous faults make none")
        },
        SelftestCase(
            "wp-async-file",
            "with WP_ASYNC a regular file's mapping can be registered for WP alone, is tracked, and takes no fills",
            requires: [.features(.writeProtectAsync)], covers: [.asyncProtection]
        ) { context in
            let paths: [String] = ["/proc/self/exe", "/bin/sh", "/etc/passwd"]
            let path = paths.first { access($0, R_OK) == 0 && !css_is_tmpfs($0) }
            guard let path else { try context.skip("no regular file outside of a tmpfs") }
            let file = try FileDescriptor.open(path, .readOnly, options: .closeOnExec)
            let base = PageSize.base.bytes
            let mapping = try Mapping(file: file, count: 4 * base, sharing: .private)
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            for modes: UserfaultFD.RegisterModes in [
                .missing, [.missing, .writeProtect], .minor, [.minor, .writeProtect],
            ] {
                try expectEqual(uffd.rawRegister(mapping.range, modes), .refused(.invalidArgument), "REGISTER \(modes)")
            }
            let plain = try UserfaultFD()
            try expectEqual(
                plain.rawRegister(mapping.range, .writeProtect), .refused(.invalidArgument), "REGISTER without WP_ASYNC"
            )
            try uffd.register(mapping.range, modes: .writeProtect)
            let source = try Mapping(anonymous: base)
            try expectEqual(uffd.raw(.copy, mapping.page(1), from: source), .failed(.invalidArgument), "COPY to a file")
            try expectEqual(uffd.raw(.zeropage, mapping.page(1)), .failed(.invalidArgument), "ZEROPAGE of a file")
            try expectEqual(uffd.raw(.continue, mapping.page(1)), .failed(.invalidArgument), "CONTINUE of a file")
            let scan = try PagemapScan()
            try uffd.writeProtect(mapping.range, .protect)
            try expectEqual(try scan.scan(mapping.range, for: .takeWritten).regions, [], "written at first")
            _ = Touch.load(mapping.range.start)
            try expectEqual(Touch.store(mapping.page(2).start, 1), .byte(1), "a write to the mapping")
            try expectEqual(
                try scan.scan(mapping.range, for: .takeWritten).regions.map(\.range), [mapping.page(2)], "written")
            try expectEqual(try scan.scan(mapping.range, for: .takeWritten).regions, [], "written after taking it")
            try uffd.expectNoMessage("asynchronous faults make none")
        },
        SelftestCase(
            "scan-written", on: .all,
            "PAGEMAP_SCAN reports exactly the pages written, and with WP_MATCHING protects exactly those anew",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            let area = try Area(context, pages: 6)
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            let scan = try PagemapScan()
            let look = PagemapScan.Query(all: .written, reported: .written)
            func expectWritten(_ ranges: [AddressRange], by query: PagemapScan.Query, _ when: String) throws {
                let result = try scan.scan(area.range, for: query)
                try expectEqual(result.regions.map(\.range), ranges, "written \(when)")
                try expect(result.regions.allSatisfy { $0.categories == .written }, "their category \(when)")
                try expectEqual(result.end, area.range.end, "where the scan ended \(when)")
            }
            try expectWritten([area.range], by: look, "at first")
            try uffd.writeProtect(area.range, .protect)
            try expectWritten([], by: look, "after protecting all")
            for page in [0, 1, 3] { Pattern.write(seed: 1, page: page, at: area.address(page), count: 64) }
            for _ in 0..<2 { try expectWritten([area.pages(0..<2), area.page(3)], by: look, "before it is taken") }
            try area.expectProtected([2, 4, 5], "after looking")
            try expectWritten([area.pages(0..<2), area.page(3)], by: .takeWritten, "when it is taken")
            try area.expectProtected([0, 1, 2, 3, 4, 5], "after taking")
            try expectWritten([], by: .takeWritten, "after taking")
            // Pages 2, 4 and 5 by an inverted mask.
            Pattern.write(seed: 1, page: 5, at: area.address(5), count: 64)
            let inverted = PagemapScan.Query(all: .written, inverted: .written, reported: .present)
            try expectEqual(
                try scan.scan(area.range, for: inverted).regions.map(\.range), [area.pages(0..<5)], "not written")
            try uffd.expectNoMessage("asynchronous faults make none")
        },
        SelftestCase(
            "scan-limits", on: .all,
            "PAGEMAP_SCAN ends where its regions or pages are used up, says where, and has protected no page beyond",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            let area = try Area(context, pages: 6)
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.range, .protect)
            let scan = try PagemapScan()
            for page in [0, 2, 3, 5] { _ = Touch.store(area.address(page), 1) }
            // One region: the first. The next scan goes on from where it ended.
            let first = try scan.scan(area.range, for: .takeWritten, regionLimit: 1)
            try expectEqual(first.regions.map(\.range), [area.page(0)], "regions of a scan for one")
            try expect(
                (area.address(1)...area.address(2)).contains(first.end), "the scan ends before the next written page",
                seen: "0x\(String(first.end, radix: 16))")
            try area.expectProtected([0, 1, 4], "after a scan for one region")
            var query = PagemapScan.Query.takeWritten
            // In base pages, whatever the size of the area's.
            query.pageLimit = area.pageSize.bytes / PageSize.base.bytes
            let second = try scan.scan(AddressRange(start: first.end, end: area.range.end), for: query)
            try expectEqual(second.regions.map(\.range), [area.page(2)], "regions of a scan for one page")
            try expectEqual(second.end, area.address(3), "where a scan for one page ended")
            try area.expectProtected([0, 1, 2, 4], "after a scan for one page")
            let third = try scan.scan(AddressRange(start: second.end, end: area.range.end), for: .takeWritten)
            try expectEqual(third.regions.map(\.range), [area.page(3), area.page(5)], "regions of a scan for the rest")
            try area.expectProtected([0, 1, 2, 3, 4, 5], "after the last scan")
        },
        SelftestCase(
            "scan-protect-all", on: .all,
            "PAGEMAP_SCAN with WP_MATCHING and no room for regions protects all that was written",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            area.fillView()
            try uffd.register(area.range, modes: .writeProtect)
            let scan = try PagemapScan()
            try scan.writeProtect(area.pages(0..<3))
            try area.expectProtected([0, 1, 2], "after the scan")
            try expectEqual(Touch.store(area.address(1), 1), .byte(1), "a write")
            try area.expectProtected([0, 2], "after the write")
            try scan.writeProtect(area.range)
            try area.expectProtected([0, 1, 2, 3], "after the second scan")
            try uffd.expectNoMessage("asynchronous faults make none")
        },
        SelftestCase(
            "scan-other-mappings", on: .all,
            "PAGEMAP_SCAN protects only where WP_ASYNC is registered; CHECK_WPASYNC ends with EPERM elsewhere",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            let area = try Area(context, pages: 6)
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            let synchronous = try UserfaultFD()
            area.fillView()
            try uffd.register(area.pages(0..<2), modes: .writeProtect)
            try synchronous.register(area.pages(4..<6), modes: .writeProtect)
            let scan = try PagemapScan()
            let supported = uffd.supportedFeatures

            let failure = try expectThrows(PagemapScan.Failure.self, "CHECK_WPASYNC refuses") {
                () throws(PagemapScan.Failure) in try scan.scan(area.range, for: .takeWritten)
            }
            try expectEqual(failure.error.errno, .notPermitted, "errno of CHECK_WPASYNC")
            try synchronous.writeProtect(area.pages(4..<6), .unprotect)
            try uffd.writeProtect(area.pages(0..<2), .unprotect)

            var query = PagemapScan.Query(all: .written, reported: [.written, .writeProtectAllowed])
            // Since Linux 7.3 a page counts as written only where that is tracked.
            let seen = try scan.scan(area.range, for: query).regions
            let tracksEverywhere = !supported.contains(.readWriteProtect)
            try expectEqual(
                seen.map(\.range),
                tracksEverywhere
                    ? [area.pages(0..<2), area.pages(2..<6)] : [area.pages(0..<2), area.pages(4..<6)], "pages written")
            try expectEqual(
                seen.map(\.categories), [[.written, .writeProtectAllowed], .written], "and where they can be protected")
            query.writeProtectsMatches = true
            _ = try scan.scan(area.range, for: query)
            try area.expectProtected([0, 1], "after WP_MATCHING over all")
            try synchronous.expectNoMessage("nothing was protected there")
        },
        SelftestCase(
            "scan-categories", on: [.anon],
            "PAGEMAP_SCAN tells present, zero, swapped and empty pages apart, by masks and their inverse",
            requires: requires + [.swap], covers: [.asyncProtection]
        ) { context in
            let area = try Area(context, pages: 6)
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            // 0 written, 1 zero page, 2 swapped, 3 empty, 4 protected, 5 empty and protected.
            for page in [0, 2, 4] {
                Pattern.write(seed: 0, page: page, at: area.address(page), count: PageSize.base.bytes)
            }
            _ = Touch.load(area.address(1))
            try area.swapOut(2..<3)
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.pages(4..<6), .protect)
            let all: PagemapScan.Categories = [.written, .file, .present, .swapped, .zeroPage, .huge]
            let scan = try PagemapScan()
            let regions = try scan.scan(area.range, for: .init(any: all, reported: all)).regions
            let right: [(Int, PagemapScan.Categories)] = [
                (0, [.written, .present]), (1, [.written, .present, .zeroPage]), (2, [.written, .swapped]),
                (3, .written),
                (4, .present),
            ]
            let five = regions.filter { $0.range.contains(area.address(5)) }
            // The marker of page 5 counts as swapped to some kernels and as nothing to others.
            context.record("an empty protected page: \(five.map(\.categories))")
            try expectEqual(
                regions.filter { !$0.range.contains(area.address(5)) }.map(\.range), right.map { area.page($0.0) },
                "regions")
            try expectEqual(
                regions.filter { !$0.range.contains(area.address(5)) }.map(\.categories), right.map(\.1), "categories")
            // A protected page is not written when it is out, either.
            try area.swapOut(4..<5)
            let out = try scan.scan(area.page(4), for: .init(any: all, reported: all)).regions
            try expectEqual(out.map(\.categories), [.swapped], "categories of a protected page that is swapped out")
            try area.expectView(4)
            let neither = try scan.scan(
                area.pages(0..<5), for: .init(all: [.present, .zeroPage], inverted: .zeroPage, reported: .present)
            ).regions
            try expectEqual(neither.map(\.range), [area.page(0), area.page(4)], "present and not the zero page")
        },
        SelftestCase(
            "scan-empty", on: .smallPages,
            "PAGEMAP_SCAN counts pages that were never touched as written, and with WP_MATCHING protects them",
            requires: requires, covers: [.asyncProtection]
        ) { context in
            // So large that there are no page tables for its middle.
            let area = try Area(context, pages: 3 * Area.hugePageCount, alignment: Area.hugePageBytes)
            let uffd = try area.registered(.writeProtect, features: .writeProtectAsync)
            let scan = try PagemapScan()
            let look = PagemapScan.Query(all: .written, reported: .written)
            try expectEqual(try scan.scan(area.range, for: look).regions.map(\.range), [area.range], "written")
            try area.expectProtected([], "after looking")
            let middle = area.pages(Area.hugePageCount + 5..<2 * Area.hugePageCount - 5)
            try expectEqual(try scan.scan(middle, for: .takeWritten).regions.map(\.range), [middle], "taken")
            try expectEqual(try scan.scan(middle, for: look).regions, [], "written after it was taken")
            let entries = try PagemapEntry.entries(of: area.range)
            try expectEqual(
                entries.indices.filter { entries[$0].isProtected }.count, middle.count / PageSize.base.bytes,
                "protected pages")
            _ = Touch.store(middle.start, 1)
            try expectEqual(
                try scan.scan(middle, for: look).regions.map(\.range),
                [AddressRange(start: middle.start, count: PageSize.base.bytes)], "written after one write")
            // Empty pages beside one that is there, in each way in which protecting may be asked for.
            let exactly = PagemapScan.Query(all: .written, reported: [.written, .present], writeProtectsMatches: true)
            for (index, query) in [.takeWritten, nil, exactly].enumerated() {
                let part = area.pages(20 * index..<20 * index + 10)
                _ = Touch.store(part.start, 1)
                if let query { _ = try scan.scan(part, for: query) } else { try scan.writeProtect(part) }
                try expect(
                    PagemapEntry.entries(of: part).allSatisfy(\.isProtected),
                    "a page and the empty ones beside it are protected by a scan for \(query, default: "nothing")")
            }
            try uffd.expectNoMessage("asynchronous faults make none")
        },
        SelftestCase(
            "scan-errors", on: [.anon],
            "PAGEMAP_SCAN refuses wrong sizes, flags, categories, addresses and pointers",
            requires: [.features(.writeProtectAsync)], covers: [.asyncProtection]
        ) { context in
            let area = try Area(context)
            area.fillView()
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            try uffd.register(area.range, modes: .writeProtect)
            let pagemap = try FileDescriptor.open("/proc/self/pagemap", .readOnly, options: .closeOnExec)
            var regions = [cuffd_page_region](repeating: cuffd_page_region(), count: 4)
            func expectErrno(_ errno: Errno, _ what: String, _ spoil: (inout cuffd_pm_scan_arg) -> Void) throws {
                var argument = cuffd_pm_scan_arg()
                argument.size = UInt64(MemoryLayout<cuffd_pm_scan_arg>.size)
                argument.flags = CUFFD_PM_SCAN_WP_MATCHING
                argument.start = UInt64(area.range.start)
                argument.end = UInt64(area.range.end)
                argument.category_mask = PagemapScan.Categories.written.rawValue
                argument.return_mask = argument.category_mask
                let answer = regions.withUnsafeMutableBytes { bytes in
                    argument.vec = UInt64(UInt(bitPattern: bytes.baseAddress))
                    argument.vec_len = 4
                    spoil(&argument)
                    return cuffd_pagemap_scan(pagemap.rawValue, &argument)
                }
                try expectEqual(Errno(rawValue: -answer), errno, "errno of PAGEMAP_SCAN with \(what)")
                try area.expectProtected([], "after \(what)")
            }
            try expectErrno(.invalidArgument, "a size too small") { $0.size -= 8 }
            try expectErrno(.invalidArgument, "a size too large") { $0.size += 8 }
            try expectErrno(.invalidArgument, "an unknown flag") { $0.flags |= 4 }
            try expectErrno(.invalidArgument, "an unaligned start") { $0.start += 8 }
            try expectErrno(.invalidArgument, "no regions") { $0.vec = 0 }
            for bit: UInt64 in [1 << 12, 1 << 63] {
                try expectErrno(.invalidArgument, "an unknown category") { $0.category_mask |= bit }
                try expectErrno(.invalidArgument, "an unknown category to invert") { $0.category_inverted |= bit }
                try expectErrno(.invalidArgument, "an unknown category among any") { $0.category_anyof_mask |= bit }
                try expectErrno(.invalidArgument, "an unknown category to report") { $0.return_mask |= bit }
            }
            try expectErrno(.badAddress, "regions that cannot be written") { $0.vec = UInt64(BadPointer.kernelHalf) }
            try expectErrno(.badAddress, "a range in the kernel's half") { $0.start = UInt64(BadPointer.kernelHalf) }
            for pointer in BadPointer.all() {
                let answer = cuffd_ioctl(pagemap.rawValue, 0xC060_6610, pointer)
                try expectEqual(answer, -Errno.badAddress.rawValue, "answer to an argument that cannot be read")
            }
            try pagemap.close()
        },
        SelftestCase(
            "scan-huge", on: [.anon],
            "PAGEMAP_SCAN protects a written transparent huge page whole, or only the part that it is asked for",
            requires: requires + [.transparentHugePages], covers: [.asyncProtection]
        ) { context in
            let area = try Area.transparentHuge(context, count: 2)
            let uffd = try area.registered(.writeProtect, features: .writeProtectAsync)
            let scan = try PagemapScan()
            let count = area.pageCount
            let all = try scan.scan(area.range, for: .takeWritten)
            try expectEqual(all.regions.map(\.range), [area.range], "written at first")
            try expectEqual(try area.hugeBytes(), area.range.count, "bytes in huge pages, protected whole")
            try area.expectProtected(Array(0..<count), "after taking all")
            try expectEqual(Touch.store(area.address(7), 1), .byte(1), "a write to a protected huge page")
            let one = try scan.scan(area.range, for: .takeWritten).regions
            try expectEqual(one.map(\.range), [area.page(7)], "written: one page of a huge page")
            try uffd.writeProtect(area.range, .unprotect)
            let part = area.pages(count / 2 + 1..<count / 2 + 3)
            try expectEqual(
                try scan.scan(part, for: .takeWritten).regions.map(\.range), [part], "written in part of a huge page")
            try area.expectProtected([count / 2 + 1, count / 2 + 2], "after taking a part")
        },
    ]
}
