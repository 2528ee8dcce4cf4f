import SystemPackage
import UserfaultFD

/// UFFDIO_COPY that waits for its source, while its destination does not stay what it was.
///
/// The kernel gives up its locks for the wait, and must look at everything again.
enum CopyWaitingCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "copy-waiting-filled", on: .all,
            "COPY whose page is filled by another while it waits for its source answers EEXIST and leaves that page",
            requires: requires, covers: [.copySources]
        ) { context in
            let scene = try Scene(context)
            let area = scene.area
            let copy = try scene.startCopy()
            let other = try area.source(1..<2, seed: 9)
            try scene.uffd.raw(.copy, area.page(1), from: other).expectDone(area.pageSize.bytes)
            let blocks = try area.blocks()
            try scene.resolveSource()
            try expectEqual(copy.finish(), .failed(.fileExists), "COPY to a page that was filled meanwhile")
            try area.expectView(1, seed: 9)
            try expectEqual(area.blocks(), blocks, "st_blocks after the refused COPY")
            try area.expectUnmapped(0..<1)
        },
        SelftestCase(
            "copy-waiting-unmapped", on: .all,
            "COPY whose destination is unmapped, or unregistered, while it waits for its source answers ENOENT",
            requires: requires, covers: [.rangeLimits, .copySources]
        ) { context in
            for unmaps in [false, true] {
                let scene = try Scene(context)
                let area = scene.area
                let copy = try scene.startCopy()
                try unmaps ? AddressSpace.unmap(area.page(1)) : scene.uffd.unregister(area.page(1))
                try scene.resolveSource()
                try expectEqual(
                    copy.finish(), .failed(.noSuchFileOrDirectory),
                    "COPY to memory that was \(unmaps ? "unmapped" : "unregistered") meanwhile")
                try expectNothingCopied(area)
                if !unmaps { try area.expectUnmapped(1..<2, "COPY was refused") }
            }
        },
        SelftestCase(
            "copy-waiting-replaced", on: .all,
            "COPY whose destination becomes another mapping while it waits for its source is not done there",
            requires: requires, covers: [.rangeLimits, .copySources]
        ) { context in
            let scene = try Scene(context)
            let area = scene.area
            let copy = try scene.startCopy()
            // Memory of another sort, which could take a page of the same size just as well, unless that is a huge one.
            let file = try Memfd(count: area.pageSize.bytes)
            let place = Mapping.Placement.replacing(area.address(1))
            let over =
                try area.memory.isShmem && !area.memory.isPrivate
                ? Mapping(anonymous: area.pageSize.bytes, placement: place).release()
                : Mapping(file, placement: place).release()
            try scene.uffd.register(over, modes: .missing)
            try scene.resolveSource()
            let answer = try copy.finish()
            let isNoticed = scene.uffd.supportedFeatures.contains(.readWriteProtect)
            let lawful: [RawAnswer] =
                area.memory.isHugetlb
                ? [
                    .failed(.resourceTemporarilyUnavailable), .failed(.noSuchFileOrDirectory),
                    .failed(.invalidArgument),
                ]
                : isNoticed
                    ? [.failed(.resourceTemporarilyUnavailable)]
                    : [.failed(.resourceTemporarilyUnavailable), .done(area.pageSize.bytes)]
            try expectOne(of: lawful, answer, "COPY to memory that was replaced meanwhile")
            context.record("COPY to memory that was replaced meanwhile: \(answer)")
            try expectNothingCopied(area)
            if answer.errno == 0 { return try area.expectView(1) }
            try area.expectUnmapped(0..<3, "COPY was refused")
            try expectEqual(file.status().blocks, 0, "st_blocks of the new mapping's file")
        },
        SelftestCase(
            "copy-waiting-truncated", on: .allShmem,
            "COPY whose file is truncated before its page while it waits for its source is refused, and maps nothing",
            requires: requires, covers: [.truncation, .copySources]
        ) { context in
            let scene = try Scene(context)
            let copy = try scene.startCopy()
            try scene.area.truncate(toViewBytes: 0)
            try scene.resolveSource()
            try expectOne(
                of: [.failed(.badAddress), .failed(.noMemory)], copy.finish(), "COPY past the end that the file has got"
            )
            try scene.area.expectUnmapped(1..<2, "it lies past the end of the file")
            try expectEqual(scene.area.blocks(), 0, "st_blocks of the empty file")
        },
        SelftestCase(
            "copy-waiting-changing", on: .all,
            "COPY that waits for its source while an event is raised answers EAGAIN, and is done when it is repeated",
            requires: requires + [.features(.eventRemove)], covers: [.copySources, .removeEvent]
        ) { context in
            let scene = try Scene(context, features: .eventRemove)
            let area = scene.area
            let filled = try area.source(3..<4)
            try scene.uffd.raw(.copy, area.page(3), from: filled).expectDone(area.pageSize.bytes)
            let copy = try scene.startCopy()
            let remover = try BackgroundCall {
                try area.view.advise(area.memory.isPrivate ? .dontNeed : .remove, area.page(3))
            }
            try remover.waitEvent(of: scene.uffd)
            try area.skipIfRefused(remover, context)
            try scene.resolveSource()
            try expectEqual(
                copy.finish(), .failed(.resourceTemporarilyUnavailable), "COPY while an event is outstanding")
            try area.expectUnmapped(0..<3, "COPY was refused")
            try scene.uffd.expectRemove(area.page(3))
            try remover.finish()
            let again = try area.source(1..<2)
            try scene.uffd.raw(.copy, area.page(1), from: again).expectDone(area.pageSize.bytes)
            try area.expectView(1)
        },
    ]

    private static let requires: [Requirement] = [.missingFaults, .kernelFaults]

    /// An area, and a source for its page 1 that a COPY must wait for.
    private final class Scene: Sendable {
        let area: Area
        let uffd: UserfaultFD
        private let guarded: UserfaultFD
        private let source: Mapping
        private let contents: Mapping

        init(_ context: CaseContext, features: UserfaultFD.Features = []) throws {
            area = try Area(context, offset: 3)
            uffd = try UserfaultFD(features: features)
            try uffd.register(area.range, modes: .missing)
            // The first base page of the source is missing; what is behind it, in a huge page, is there.
            source = try area.source(1..<2)
            contents = try area.source(1..<2)
            guarded = try UserfaultFD(options: .init(faults: .userAndKernelMode))
            try guarded.register(missingPart, modes: .missing)
            try source.advise(.dontNeed, missingPart)
            _ = Unmanaged.passRetained(self)
        }

        private var missingPart: AddressRange { source.range.part(at: 0, count: PageSize.base.bytes) }

        /// Starts the COPY, and waits until it waits for its source.
        func startCopy() throws -> BackgroundCall<RawAnswer> {
            let copy = try BackgroundCall { self.uffd.raw(.copy, self.area.page(1), source: self.source.range.start) }
            try guarded.expectFault(at: missingPart.start, [])
            try copy.waitBlocked()
            return copy
        }

        func resolveSource() throws {
            try guarded.copy(from: contents.range.start, to: missingPart)
        }
    }

    /// Fails if a page has come into the file, which had none.
    private static func expectNothingCopied(_ area: Area, file: String = #fileID, line: Int = #line) throws {
        try expectEqual(area.blocks(), 0, "st_blocks after the refused COPY", file: file, line: line)
    }
}
