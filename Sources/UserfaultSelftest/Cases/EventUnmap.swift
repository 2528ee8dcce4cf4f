import CSelftestSupport
import SystemPackage
import UserfaultFD

/// The UNMAP event: what unmaps registered memory tells the monitor, and waits for it.
enum EventUnmapCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "event-unmap", on: .all,
            "munmap of some pages reports their range once they are unmapped, and waits until that is read",
            requires: [.missingFaults, .features(.eventUnmap)], covers: [.unmapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .eventUnmap)
            try area.registerFilled(uffd)
            let call = try BackgroundCall { try AddressSpace.unmap(area.pages(1..<3)) }
            try call.waitBlocked(on: uffd)
            try expectEqual(mappings(in: area.pages(1..<3)), [], "mappings left where munmap has been")
            try uffd.expectUnmap(area.pages(1..<3))
            try call.finish()
            try uffd.expectNoMessage("one munmap makes one event")
            try area.expectView(0, "the page before")
            try area.expectView(3, "the page behind")
            try expectEqual(
                uffd.raw(.copy, area.page(1), from: area.source(1..<2)), .failed(.noSuchFileOrDirectory),
                "COPY to what was unmapped")
        },
        SelftestCase(
            "event-unmap-whole-request", on: .smallPages,
            "munmap over registered and other memory makes one event with the whole range that was asked for",
            requires: [.missingFaults, .features(.eventUnmap)], covers: [.unmapEvent]
        ) { context in
            let area = try Area(context, pages: 6)
            let uffd = try UserfaultFD(features: .eventUnmap)
            try uffd.register(area.page(2), modes: .missing)
            try uffd.register(area.page(4), modes: .missing)
            let call = try BackgroundCall { try AddressSpace.unmap(area.pages(1..<6)) }
            try call.waitBlocked(on: uffd)
            try uffd.expectUnmap(area.pages(1..<6))
            try call.finish("one event is all that munmap waits for")
            try uffd.expectNoMessage("two registered mappings in one munmap make one event")
        },
        SelftestCase(
            "event-unmap-nothing-registered", on: .smallPages,
            "munmap of memory that is not registered makes no event",
            requires: [.missingFaults, .features(.eventUnmap)], covers: [.unmapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .eventUnmap)
            try uffd.register(area.page(0), modes: .missing)
            let call = try BackgroundCall { try AddressSpace.unmap(area.pages(2..<4)) }
            try call.finish("munmap does not wait")
            try uffd.expectNoMessage("the registered page is still mapped")
        },
        SelftestCase(
            "event-unmap-replaced", on: .smallPages,
            "a mapping put over registered memory makes an event of the part that it replaces",
            requires: [.missingFaults, .features(.eventUnmap)], covers: [.unmapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .eventUnmap)
            try area.registerFilled(uffd)
            let call = try BackgroundCall {
                let over = try Mapping(
                    anonymous: area.pageSize.bytes, placement: .replacing(area.address(2)))
                _ = over.release()
            }
            try call.waitBlocked(on: uffd)
            try uffd.expectUnmap(area.page(2))
            try call.finish()
            try area.expectZeroView(2)
            try uffd.expectNoMessage("the new mapping is not registered")
            try area.expectView(1)
            try area.expectView(3)
        },
        SelftestCase(
            "event-unmap-shrink", on: .smallPages,
            "mremap that shrinks registered memory in place makes an UNMAP event of the tail, and no REMAP",
            requires: [.missingFaults, .features([.eventUnmap, .eventRemap])], covers: [.unmapEvent, .remapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: [.eventUnmap, .eventRemap])
            try area.registerFilled(uffd)
            let call = try BackgroundCall {
                try Remapping.resize(area.range, to: 3 * area.pageSize.bytes)
            }
            try call.waitBlocked(on: uffd)
            try uffd.expectUnmap(area.page(3))
            try expectEqual(try call.finish(), area.range.start, "address after shrinking")
            try uffd.expectNoMessage("nothing moved")
            for page in 0..<3 { try area.expectView(page) }
        },
        SelftestCase(
            "event-unmap-each-context", on: [.anon, .shmem],
            "one munmap over memory of two userfaultfds makes an event for each, and waits for both",
            requires: [.missingFaults, .features(.eventUnmap)], covers: [.unmapEvent]
        ) { context in
            let area = try Area(context)
            let first = try UserfaultFD(features: .eventUnmap)
            let second = try UserfaultFD(features: .eventUnmap)
            try first.register(area.page(1), modes: .missing)
            try second.register(area.pages(2..<4), modes: .missing)
            let part = area.pages(0..<3)
            let call = try BackgroundCall { try AddressSpace.unmap(part) }
            try Waiting.until("munmap raises an event") {
                try first.poll(timeout: .zero) || second.poll(timeout: .zero)
            }
            let gated = Errno.resourceTemporarilyUnavailable.rawValue
            try expectEqual(first.raw(.zeropage, area.page(3)).errno, gated, "errno of ZEROPAGE by the first")
            try expectEqual(second.raw(.zeropage, area.page(3)).errno, gated, "errno of ZEROPAGE by the second")
            // Whose turn is first is the kernel's choice.
            if try first.poll(timeout: .zero) {
                try first.expectUnmap(part)
                try call.waitBlocked(on: second)
                try second.expectUnmap(part)
            } else {
                try second.expectUnmap(part)
                try call.waitBlocked(on: first)
                try first.expectUnmap(part)
            }
            try call.finish()
            try first.expectNoMessage("one munmap makes one event")
            try second.expectNoMessage("one munmap makes one event")
            try second.raw(.zeropage, area.page(3)).expectDone(area.pageSize.bytes)
        },
        SelftestCase(
            "event-unmap-heap",
            "a heap that shrinks reports what it gives back, and waits until that is read",
            requires: [.features(.eventUnmap)], covers: [.unmapEvent]
        ) { context in
            let page = PageSize.base.bytes
            var start: UInt = 0
            try checked(css_heap_pages(&start, 3 * page))
            let heap = AddressRange(start: start, count: 3 * page)
            let uffd = try UserfaultFD(features: .eventUnmap)
            try uffd.register(heap, modes: .missing)
            let call = try BackgroundCall { css_heap_shrink(heap.start + UInt(page), heap.end) }
            try call.waitEvent(of: uffd)
            if call.isFinished { try context.skip("the heap has grown meanwhile: \(try call.finish())") }
            guard case .unmap(let range) = try uffd.expectMessage("an unmap event") else {
                throw CaseFailure(expected: "an unmap event", seen: "another event")
            }
            try expectEqual(range.start, heap.start + UInt(page), "start of the unmap event")
            try expect(range.end >= heap.end, "the unmap event reaches the end of the heap", seen: "\(range)")
            try expectEqual(call.finish(), 0, "answer of brk")
            try uffd.expectNoMessage("the heap has shrunk once")
            try uffd.raw(.zeropage, heap.part(at: 0, count: page)).expectDone(page)
        },
        SelftestCase(
            "event-unmap-not-enabled", on: .smallPages,
            "without the feature munmap does not wait, and makes no message",
            requires: [.missingFaults], covers: [.unmapEvent]
        ) { context in
            let area = try Area(context)
            let uffd = try area.registered(.missing)
            let call = try BackgroundCall { try AddressSpace.unmap(area.page(1)) }
            try call.finish("munmap does not wait")
            try uffd.expectNoMessage("the event was not asked for")
        },
        SelftestCase(
            "event-unmap-close", on: [.anon, .shmem],
            "closing the userfaultfd releases a munmap that waits for its event to be read",
            requires: [.missingFaults, .features(.eventUnmap)], covers: [.unmapEvent, .passedDescriptors]
        ) { context in
            let area = try Area(context)
            let uffd = try UserfaultFD(features: .eventUnmap)
            try area.registerFilled(uffd)
            let call = try BackgroundCall { try AddressSpace.unmap(area.page(1)) }
            try call.waitBlocked(on: uffd)
            try uffd.close()
            try call.finish("munmap goes on when nobody can read its event any more")
        },
    ]
}
