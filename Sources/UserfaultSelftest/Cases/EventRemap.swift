import SystemPackage
import UserfaultFD

/// The REMAP event: registered memory that mremap moves stays registered, and the monitor is told.
enum EventRemapCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "event-remap", on: .all,
            "mremap to another place reports both places, waits until that is read, and the new place is registered",
            requires: [.missingFaults, .features(.eventRemap)], covers: [.remapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing, features: .eventRemap)
            try uffd.copy(from: area.source(0..<1), to: area.page(0))
            try uffd.copy(from: area.source(3..<4), to: area.page(3))
            let target = try reserve(area.range.count, alignment: area.pageSize.bytes)
            let call = try BackgroundCall { try Remapping.move(area.range, to: target) }
            try call.waitEvent(of: uffd)
            if call.isFinished, area.memory.isHugetlb {
                do { _ = try call.finish() } catch let error as Errno {
                    try KernelLack.hugePageMoves.check(-error.rawValue)
                }
            }
            try uffd.expectRemap(area.range, to: target.start)
            try expectEqual(try call.finish(), target.start, "new address")
            try uffd.expectNoMessage("one mremap makes one event")

            try expect(
                MappingAccount(holding: target.start).flags.contains("um"), "the moved mapping is registered in smaps")
            let size = area.pageSize.bytes
            try Pattern.expect(seed: 0, page: 0, at: target.start, count: size, "contents that moved")
            try Pattern.expect(seed: 0, page: 3, at: target.start + UInt(3 * size), count: size, "contents that moved")
            let missing = target.part(at: size, count: size)
            let touch = try Touch.read(missing.start)
            try uffd.expectFault(at: missing.start, [])
            try uffd.copy(from: area.source(1..<2), to: missing)
            try touch.finish()
            try Pattern.expect(seed: 0, page: 1, at: missing.start, count: size, "contents filled after the move")
        },
        SelftestCase(
            "event-remap-part", on: .smallPages,
            "moving a part of a registered mapping reports that part; both pieces stay registered",
            requires: [.missingFaults, .features(.eventRemap)], covers: [.remapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing, features: .eventRemap)
            let target = try reserve(2 * area.pageSize.bytes)
            let call = try BackgroundCall { try Remapping.move(area.pages(1..<3), to: target) }
            try call.waitBlocked(on: uffd)
            try uffd.expectRemap(area.pages(1..<3), to: target.start)
            try call.finish()
            for address in [area.address(0), area.address(3), target.start] {
                let touch = try Touch.read(address)
                try uffd.expectFault(at: address, [])
                try uffd.copy(from: area.source(0..<1), to: .page(holding: address, size: area.pageSize))
                try touch.finish()
            }
        },
        SelftestCase(
            "event-remap-grow", on: .smallPages,
            "memory that grows while it moves reports its old length, and is registered in its new length",
            requires: [.missingFaults, .features(.eventRemap)], covers: [.remapEvent]
        ) { context in
            let area = try Area(context)
            try area.file?.resize(to: 8 * area.pageSize.bytes)
            let uffd = try area.registered(.missing, features: .eventRemap)
            let target = try reserve(8 * area.pageSize.bytes)
            let call = try BackgroundCall { try Remapping.move(area.range, to: target) }
            try call.waitBlocked(on: uffd)
            try uffd.expectRemap(area.range, to: target.start)
            try call.finish()
            let grown = target.part(at: 7 * area.pageSize.bytes, count: area.pageSize.bytes)
            let touch = try Touch.read(grown.start)
            try uffd.expectFault(at: grown.start, [])
            try uffd.copy(from: area.source(7..<8), to: grown)
            try touch.finish()
        },
        SelftestCase(
            "event-remap-in-place", on: .smallPages,
            "mremap that only shrinks in place makes no REMAP event",
            requires: [.missingFaults, .features(.eventRemap)], covers: [.remapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .eventRemap)
            try area.registerFilled(uffd)
            let call = try BackgroundCall { try Remapping.resize(area.range, to: 2 * area.pageSize.bytes) }
            try expectEqual(try call.finish("mremap does not wait"), area.range.start, "address")
            try uffd.expectNoMessage("nothing moved")
        },
        SelftestCase(
            "event-remap-keeping", on: [.anon, .shmem, .shmemPrivate],
            "MREMAP_DONTUNMAP makes a REMAP and no UNMAP event, and leaves the old range registered and empty",
            requires: [.missingFaults, .features([.eventRemap, .eventUnmap])], covers: [.remapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: [.eventRemap, .eventUnmap])
            try area.registerFilled(uffd)
            let target = try Mapping(anonymous: area.range.count, protection: .none).release()
            let call = try BackgroundCall { () -> Errno? in
                do throws(Errno) { _ = try Remapping.moveKeeping(area.range, to: target.start) } catch { return error }
                return nil
            }
            try call.waitEvent(of: uffd)
            if call.isFinished, try call.finish() == .invalidArgument {
                try context.skip(kernel: "the kernel has no MREMAP_DONTUNMAP for this memory (Linux 5.13)")
            }
            try uffd.expectRemap(area.range, to: target.start)
            try expectEqual(try call.finish(), nil, "errno of mremap")
            try uffd.expectNoMessage("the old range is still mapped")
            try Pattern.expect(
                seed: 0, page: 2, at: target.start + UInt(2 * area.pageSize.bytes), count: PageSize.base.bytes,
                "moved page")
            try expect(
                MappingAccount(holding: area.range.start).flags.contains("um"), "the old range is still registered")
            let entry = try PagemapEntry(of: area.address(1))
            try expect(!entry.isPresent, "the old range is empty", seen: "\(entry)")
            if area.memory == .anon {
                let touch = try Touch.read(area.address(1))
                try uffd.expectFault(at: area.address(1), [])
                try uffd.zeropage(area.page(1))
                try touch.finish(with: 0)
            }
        },
        SelftestCase(
            "event-remap-then-unmap", on: [.anon, .shmem],
            "moving memory onto registered memory reports what it replaces, then the move, then what it left",
            requires: [.missingFaults, .features([.eventRemap, .eventUnmap])], covers: [.unmapEvent, .remapEvent]
        ) { context in
            let area = try Area(context)
            let target = try Area(context)
            let uffd = try UserfaultFD(features: [.eventRemap, .eventUnmap])
            try area.registerFilled(uffd)
            try target.registerFilled(uffd)
            let call = try BackgroundCall { try Remapping.move(area.range, to: target.range) }
            var seen: [String] = []
            try Waiting.until("mremap goes on once its events are read") {
                var batch = EventBatch(capacity: 1)
                while try uffd.read(into: &batch) > 0 {
                    switch batch.next()! {
                    case .remap(area.range.start, target.range.start, area.range.count): seen.append("remap")
                    case .unmap(let range) where range == target.range: seen.append("unmap target")
                    case .unmap(let range) where range == area.range: seen.append("unmap source")
                    default: seen.append("another event")
                    }
                }
                return call.isFinished
            }
            try expectOne(
                of: [["unmap target", "remap", "unmap source"], ["remap", "unmap target", "unmap source"]], seen,
                "events of a move onto registered memory")
            context.record("order of the events: \(seen.joined(separator: ", "))")
        },
        SelftestCase(
            "event-remap-failed", on: .smallPages,
            "mremap that fails makes no event, and the descriptor fills pages as before",
            requires: [.missingFaults, .features([.eventRemap, .eventUnmap])], covers: [.remapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing, features: [.eventRemap, .eventUnmap])
            let size = area.pageSize.bytes
            let failing: [(String, AddressRange, Int, Int32, UInt)] = [
                ("to where it overlaps itself", area.range, area.range.count, 3, area.address(1)),
                ("to an address that is not aligned", area.range, area.range.count, 3, area.address(1) + 1),
                ("to more than any address space", area.range, Int.max - size + 1, 1, 0),
                ("growing in place against a neighbour", area.pages(0..<2), 4 * size, 0, 0),
                (
                    "growing a range that is not mapped", AddressRange(start: area.range.end, count: size), 2 * size, 1,
                    0
                ),
            ]
            for (index, (what, range, count, flags, target)) in failing.enumerated() where index < area.pageCount {
                let call = try BackgroundCall { () -> Bool in
                    do throws(Errno) { _ = try Remapping.call(range, count: count, flags: flags, target: target) } catch
                    {
                        return true
                    }
                    return false
                }
                try expect(try call.finish("mremap \(what) returns"), "mremap \(what) fails", seen: "it succeeds")
                try uffd.expectNoMessage("mremap \(what) failed")
                try expectEqual(
                    uffd.raw(.copy, area.page(index), from: area.source(index..<index + 1)), .done(size),
                    "COPY after mremap \(what)")
            }
        },
        SelftestCase(
            "event-remap-several", on: .smallPages,
            "mremap does not move several registered mappings at once, not even where it moves several others",
            requires: [.missingFaults, .features(.eventRemap)], covers: [.remapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .eventRemap)
            try area.registerFilled(uffd)
            try area.view.protect(.read, area.pages(2..<4))
            let target = try reserve(area.range.count)
            let call = try BackgroundCall { () -> Errno? in
                do throws(Errno) { _ = try Remapping.move(area.range, to: target) } catch { return error }
                return nil
            }
            try expectEqual(try call.finish("mremap does not wait"), .badAddress, "errno of mremap")
            try uffd.expectNoMessage("nothing moved")
            for page in 0..<4 { try area.expectView(page, "contents where they were") }
        },
        SelftestCase(
            "event-remap-not-enabled", on: .smallPages,
            "without the feature memory that moves is no longer registered, and no message is made",
            requires: [.missingFaults], covers: [.remapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing)
            let target = try reserve(area.range.count)
            let call = try BackgroundCall { try Remapping.move(area.range, to: target) }
            try call.finish("mremap does not wait")
            try uffd.expectNoMessage("the event was not asked for")
            try expect(
                !MappingAccount(holding: target.start).flags.contains("um"), "the moved mapping is not registered")
            let touch = try Touch.read(target.start)
            try touch.finish(with: 0, "a touch of the moved memory is an ordinary fault")
        },
    ]
}
