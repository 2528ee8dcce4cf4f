import UserfaultFD

/// What hangs its caller on a broken kernel so that no signal ends it: last, because the process stays behind.
enum LastCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "scan-untouched-huge", on: .allHugetlb,
            "PAGEMAP_SCAN with WP_MATCHING comes back from huge pages that were never touched, and loses no write to them",
            requires: [.writeProtectFaults, .features(.writeProtectAsync), .addressSpace(2304)], limit: .seconds(3),
            covers: [.asyncProtection]
        ) { context in
            // So far from everything else that no page table is there.
            let slot = Area.hugePageBytes * (PageSize.base.bytes / MemoryLayout<UInt64>.size)
            let area = try Area(context, alignment: slot)
            let uffd = try UserfaultFD(features: .writeProtectAsync)
            try uffd.register(area.range, modes: .writeProtect)
            let scan = try PagemapScan()
            context.record("a broken kernel never returns from this scan, and its process cannot be killed")
            try scan.writeProtect(area.range)
            // How many of the pages it marks differs; those that are written must be found all the same.
            let marked = try (0..<4).filter { try PagemapEntry(of: area.address($0)).isProtected }
            context.record("untouched huge pages that the scan has marked: \(marked)")
            for page in [1, 2] { try expectEqual(Touch.store(area.address(page), 1), .byte(1), "a write") }
            let written = PagemapScan.Query(all: [.written, .present], reported: .written, writeProtectsMatches: true)
            try expectEqual(
                try scan.scan(area.range, for: written).regions.map(\.range), [area.pages(1..<3)], "written, and there")
            try expectEqual(try scan.scan(area.range, for: written).regions, [], "written after it was taken")
            try uffd.expectNoMessage("asynchronous faults make none")
        }
    ]
}
