import SystemPackage
import UserfaultFD

/// What is done to the file behind an area, and what is seen of it without any mapping.
extension Area {
    /// Where a page of the view lies in the file, in bytes.
    package func fileOffset(of index: Int) -> Int { fileOffset + index * pageSize.bytes }

    /// Drops pages from the file: they become holes.
    package func punchHole(_ indices: Range<Int>) throws {
        try file!.punchHole(at: fileOffset(of: indices.lowerBound), count: indices.count * pageSize.bytes)
    }

    /// Lets the file end after so many bytes of the view.
    package func truncate(toViewBytes count: Int) throws {
        try file!.resize(to: fileOffset + count)
    }

    /// What `pread(2)` says a page of the file holds.
    ///
    /// A hole stays one.
    package func readFile(_ index: Int) throws -> [UInt8] {
        var done = 0
        return try [UInt8](unsafeUninitializedCapacity: pageSize.bytes) { buffer, count in
            while done < pageSize.bytes {
                let answer = file!.withUnsafeDescriptor {
                    RawMemory.read(
                        $0.rawValue, into: buffer.baseAddress! + done, pageSize.bytes - done,
                        at: fileOffset(of: index) + done)
                }
                try expect(answer > 0, "pread answers bytes of page \(index)", seen: "\(answer)")
                done += answer
            }
            count = done
        }
    }

    /// Fails unless the file itself, read without a mapping, holds the pattern of a page.
    package func expectStored(_ index: Int, seed: UInt8 = 0, file: String = #fileID, line: Int = #line) throws {
        let bytes = try readFile(index)
        try bytes.withUnsafeBytes { bytes in
            try Pattern.expect(
                seed: seed, page: index, at: UInt(bitPattern: bytes.baseAddress), count: bytes.count,
                "what pread reads from the file", file: file, line: line)
        }
    }

    /// Fails unless the file itself, read without a mapping, has zeros for a page, as a hole does.
    package func expectStoredZeros(_ index: Int, file: String = #fileID, line: Int = #line) throws {
        let bytes = try readFile(index)
        try bytes.withUnsafeBytes { bytes in
            try Pattern.expectZero(
                at: UInt(bitPattern: bytes.baseAddress), count: bytes.count, "page \(index) of the file", file: file,
                line: line)
        }
    }

    /// Makes one huge page of the view's pages; what has one reference too many cannot be collapsed.
    package func collapseView(_ context: CaseContext, file: String = #fileID, line: Int = #line) throws {
        var answer: CInt = 0
        // Pages on their way to another processor's list are busy for a moment.
        for _ in 0..<10 {
            answer = RawMemory.advise(range, .collapse)
            if answer != -Errno.resourceTemporarilyUnavailable.rawValue { break }
        }
        if answer == -Errno.invalidArgument.rawValue {
            try context.skip(kernel: "this kernel cannot collapse such memory")
        }
        try expectEqual(answer, 0, "answer of MADV_COLLAPSE", file: file, line: line)
    }

    /// Fails unless nothing is mapped at these pages of the view: no page, no swap entry, no marker that shows.
    package func expectUnmapped(
        _ indices: Range<Int>, _ why: @autoclosure () -> String = "nothing was done to it", file: String = #fileID,
        line: Int = #line
    ) throws {
        for index in indices {
            let entry = try PagemapEntry(of: address(index))
            try expect(
                !entry.isPresent && !entry.isSwapped && !entry.isProtected,
                "page \(index) of the view is not mapped: \(why())", seen: "\(entry)", file: file, line: line)
        }
    }

    /// Fails unless a page is mapped at each of these pages of the view, in every base page of it.
    package func expectMapped(
        _ indices: Range<Int>, isFile: Bool? = nil, isProtected: Bool = false, file: String = #fileID,
        line: Int = #line
    ) throws {
        for index in indices {
            let entry = try PagemapEntry(of: address(index))
            try expect(entry.isPresent, "page \(index) of the view is mapped", seen: "\(entry)", file: file, line: line)
            if PagemapEntry.showsProtection {
                try expectEqual(
                    entry.isProtected, isProtected, "protection of page \(index) of the view", file: file, line: line)
            }
            if let isFile {
                try expectEqual(
                    entry.isFile, isFile, "whether page \(index) of the view is the file's", file: file, line: line)
            }
        }
    }
}

extension PageSize {
    /// What one entry of a page table's second level maps: 2 MiB where base pages have 4 KiB.
    static let transparentHuge =
        ProcFile.line("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
        .flatMap { Int($0) }.flatMap { PageSize(bytes: $0) } ?? pageTable

    /// What a page table of one page maps, with entries of 8 bytes.
    private static let pageTable = PageSize(bytes: PageSize.base.bytes / 8 * PageSize.base.bytes) ?? .twoMiB
}
