import CBenchBaseline
import Glibc
import SystemPackage
import UserfaultFD

/// A file in memory, all its pages in the page cache, and the ways of reading it without a userfaultfd.
///
/// What a cold file costs is the disk's.
final class CachedFile: Sendable {
    let bytes: Int
    let mapped: Mapping
    /// What ``cbb_scan`` answers for the whole of it.
    let checksum: UInt64
    private let file: Memfd

    init(bytes: Int) throws {
        self.bytes = bytes
        file = try Memfd(name: "uffd-bench-file", count: bytes)
        mapped = try Mapping(file)
        // Every page has its own content.
        for page in stride(from: mapped.range.start, to: mapped.range.end, by: PageSize.base.bytes) {
            UnsafeMutablePointer<UInt>(bitPattern: page)!.pointee = page
        }
        checksum = cbb_scan(UInt64(mapped.range.start), bytes)
    }

    var pages: Int { bytes / PageSize.base.bytes }

    /// Maps it once more, reads it in order and unmaps it.
    func read(populated: Bool) throws -> Sample {
        let start = cbb_now()
        let fresh = try Mapping(file, protection: .read, options: populated ? .populate : [])
        try check(cbb_scan(UInt64(fresh.range.start), bytes))
        return Sample(cbb_now() - start, units: bytes >> 10)
    }

    /// Reads it in order by `pread(2)`, 2 MiB at a time.
    func readCall() throws -> Sample {
        let piece = try Mapping(anonymous: 2 << 20, options: .populate)
        var sum: UInt64 = 0
        let start = cbb_now()
        try file.withUnsafeDescriptor { descriptor in
            for offset in stride(from: 0, to: bytes, by: piece.count) {
                let count = pread(
                    descriptor.rawValue, UnsafeMutableRawPointer(bitPattern: piece.range.start)!, piece.count, offset)
                guard count > 0 else { throw Mismeasured(description: "pread(2) returned \(count)") }
                sum &+= cbb_scan(UInt64(piece.range.start), count)
            }
        }
        let time = cbb_now() - start
        try check(sum)
        return Sample(time, units: bytes >> 10)
    }

    /// Maps it once more and touches pages in an order.
    func touch(_ order: [UInt32]) throws -> Sample {
        let fresh = try Mapping(file, protection: .read)
        let start = cbb_now()
        cbb_touch(UInt64(fresh.range.start), order.count, PageSize.base.bytes, order, 0, nil)
        return Sample(cbb_now() - start, units: order.count)
    }

    /// Every byte that was read must be the file's.
    func check(_ sum: UInt64) throws {
        guard sum == checksum else { throw Mismeasured(description: "the bytes read are not those of the file") }
    }
}
