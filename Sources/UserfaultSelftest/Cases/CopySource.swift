import Glibc
import SystemPackage
import UserfaultFD

/// Where UFFDIO_COPY takes its bytes from.
enum CopySourceCases: CaseTheme {
    static let cases: [SelftestCase] = [
        SelftestCase(
            "copy-source-unaligned", on: .all,
            "COPY takes its bytes from any address, whole and in order",
            requires: [.missingFaults], covers: [.arguments, .copySources]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered(.missing)
            let source = try area.source(0..<4)
            let offsets: [Int: Int] = [1: 8, 2: 4088, 0: 1]
            for (page, offset) in offsets {
                let start = source.range.start + UInt(offset)
                try uffd.raw(.copy, area.page(page), source: start).expectDone(area.pageSize.bytes)
                let answer = memcmp(
                    UnsafeRawPointer(bitPattern: area.address(page))!, UnsafeRawPointer(bitPattern: start)!,
                    area.pageSize.bytes)
                try expect(answer == 0, "the page copied from offset \(offset) is the same as its source")
            }
            try area.expectUnmapped(3..<4)
        },
        SelftestCase(
            "copy-source-unreadable", on: .all,
            "COPY from memory that cannot be read answers EFAULT, after the pages before it were copied",
            requires: [.missingFaults], covers: [.fillProgress, .copySources]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered(.missing)
            let blocks = try area.blocks()
            let source = try area.source(0..<4)
            // The source ends in the middle of page 2, as far as it can be read.
            let end = source.range.start + UInt(2 * area.pageSize.bytes + area.pageSize.bytes / 2)
            let bad = AddressRange(start: PageSize.base.roundDown(end), end: source.range.end)
            try source.protect(.none, bad)
            let touches = try [1, 2].map { page in
                let touch = try Touch.read(area.address(page))
                try uffd.expectFault(at: area.address(page), [])
                try touch.thread.waitAsleep()
                return touch
            }
            let page = area.pageSize.bytes
            try expectEqual(
                uffd.raw(.copy, area.range, source: source.range.start), .partial(2 * page), "COPY up to page 2")
            try touches[0].finish()
            try touches[1].thread.expectStillAsleep("COPY did not come so far")
            for index in 0..<2 { try area.expectView(index) }
            try area.expectUnmapped(2..<4, "its source cannot be read")
            let start = source.range.start + UInt(2 * page)
            for pages in [2..<4, 2..<3] {
                try expectEqual(
                    uffd.raw(.copy, area.pages(pages), source: start), .failed(.badAddress), "COPY of pages \(pages)")
            }
            try area.expectUnmapped(2..<4, "its source cannot be read")
            try touches[1].thread.expectStillAsleep("a refused COPY wakes nobody")
            let isInFile = area.file != nil && !context.memory.isPrivate
            let added = isInFile ? 2 * page / 512 : 0
            try expectEqual(area.blocks() - blocks, added, "st_blocks more after COPY of two pages")

            // Nor from memory that is not mapped, or lies past the end of its file.
            let short = try Memfd(count: PageSize.base.bytes)
            let pastEnd = try Mapping(short, count: area.pageSize.bytes + PageSize.base.bytes)
            try expectEqual(
                uffd.raw(.copy, area.page(2), source: pastEnd.range.start + UInt(PageSize.base.bytes)),
                .failed(.badAddress),
                "COPY from past the end of a file")
            try AddressSpace.unmap(bad)
            try expectEqual(
                uffd.raw(.copy, area.page(2), source: start), .failed(.badAddress),
                "COPY from memory that is not mapped")
            let whole = try area.source(2..<4)
            try uffd.raw(.copy, area.pages(2..<4), source: whole.range.start).expectDone(2 * page)
            try touches[1].finish()
            for index in 0..<4 { try area.expectView(index) }
        },
        SelftestCase(
            "copy-source-untouched", on: [.anon, .shmem, .hugetlb],
            "COPY brings in what it copies from: pages of a file not mapped yet, and zeros of memory never touched",
            requires: [.missingFaults], covers: [.copySources]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try area.registered(.missing)
            let empty = try Mapping(anonymous: area.pageSize.bytes)
            try uffd.raw(.copy, area.page(1), source: empty.range.start).expectDone(area.pageSize.bytes)
            try area.expectZeroView(1)

            let file = try Memfd(count: area.pageSize.bytes)
            let writer = try Mapping(file)
            Pattern.write(seed: 4, page: 2, at: writer.range.start, count: area.pageSize.bytes)
            let reader = try Mapping(file, protection: .read)
            try uffd.raw(.copy, area.page(2), source: reader.range.start).expectDone(area.pageSize.bytes)
            try area.expectView(2, seed: 4)
            try uffd.expectNoMessage()
        },
        SelftestCase(
            "copy-source-guarded", on: [.anon, .shmem, .hugetlb],
            "COPY from memory guarded against user code alone answers EFAULT and makes no message",
            requires: [.missingFaults], covers: [.copySources, .kernelFaults]
        ) { context in
            let area = try Area(context, offset: 3)
            let uffd = try UserfaultFD()
            guard !uffd.handlesKernelFaults else {
                try context.skip(kernel: "this kernel cannot guard against user code alone")
            }
            try uffd.register(area.range, modes: .missing)
            let source = try Mapping(anonymous: 2 * area.pageSize.bytes)
            let other = try source.registered(.missing)
            try expectEqual(
                uffd.raw(.copy, area.page(1), source: source.range.start), .failed(.badAddress),
                "COPY from guarded memory")
            try expectEqual(
                uffd.raw(.copy, area.page(1), source: area.address(2)), .failed(.badAddress), "COPY from the same area")
            try other.expectNoMessage("the access was the kernel's")
            try uffd.expectNoMessage("the access was the kernel's")
            try area.expectUnmapped(0..<4, "COPY was refused")
        },
        SelftestCase(
            "copy-source-served", on: [.anon, .shmem, .hugetlb],
            "COPY from guarded memory waits like any kernel access until that is resolved, and then copies it",
            requires: [.missingFaults, .kernelFaults], covers: [.copySources, .kernelFaults]
        ) { context in
            let area = try Area(context, offset: 3)
            let descriptor = Handler.Descriptor(try UserfaultFD())
            try descriptor.uffd.register(area.range, modes: .missing)
            let source = try Mapping(anonymous: area.pageSize.bytes)
            let guarded = try source.registered(.missing, options: .init(faults: .userAndKernelMode))
            let start = source.range.start
            let copy = try BackgroundCall { descriptor.uffd.raw(.copy, area.page(1), source: start) }
            let contents = try area.source(1..<2)
            for offset in stride(from: 0, to: area.pageSize.bytes, by: PageSize.base.bytes) {
                // Some pages of a huge source are enough to see that each is waited for.
                let part =
                    offset < 2 * PageSize.base.bytes
                    ? source.range.part(at: offset, count: PageSize.base.bytes) : source.range.dropFirst(offset)
                try guarded.expectFault(at: part.start, [])
                try copy.waitBlocked()
                try area.expectUnmapped(0..<4, "COPY has not got its source")
                try guarded.copy(from: contents.range.start + (part.start - source.range.start), to: part)
                if part.end == source.range.end { break }
            }
            try copy.finish().expectDone(area.pageSize.bytes)
            try area.expectView(1)
            try area.expectUnmapped(0..<1)
            try guarded.expectNoMessage("every page of the source was resolved")
        },
    ]
}
