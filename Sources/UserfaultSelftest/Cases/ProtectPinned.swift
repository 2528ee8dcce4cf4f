import SystemPackage
import UserfaultFD

/// Write-protection of pages that are pinned, as those that hardware reaches are.
enum ProtectPinnedCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "wp-pinned", on: [.anon, .shmem, .shmemPrivate, .hugetlb, .hugetlbPrivate],
            "a pinned page can be protected, which stops no store through the pin, and stays the pinned one when written",
            // The feature came with pages that are known to be exclusive (Linux 5.19): before, a write copied them.
            requires: [.writeProtectFaults, .features(.writeProtectHugetlbfsShmem)], covers: [.protectionSurvives]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD()
            area.fillView()
            let pin = try Pin(area.page(1))
            try uffd.register(area.range, modes: .writeProtect)
            try uffd.writeProtect(area.range, .protect)
            try area.expectProtected([0, 1, 2, 3], "with page 1 pinned")
            try pin.store(0xA1)
            try uffd.expectNoMessage("a store through a pin asks no page table")
            try expectEqual(Touch.load(area.address(1)), .byte(0xA1), "what was stored through the pin")
            for page in 0..<2 {
                let touch = try Touch.write(area.address(page) + 8, 0xA2)
                try uffd.expectFault(at: area.address(page), [.write, .writeProtect])
                try uffd.writeProtect(area.page(page), .unprotect)
                try touch.finish(with: 0xA2)
            }
            try pin.store(0xA3)
            try expectEqual(Touch.load(area.address(1)), .byte(0xA3), "the written page, stored to through the pin")
            try area.expectProtected([2, 3], "after the writes")
            try pin.release()
        }
    ]
}
