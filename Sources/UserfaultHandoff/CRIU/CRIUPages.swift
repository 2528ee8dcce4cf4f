internal import UserfaultFD

/// The pages of one task of a dump, as a source: offsets are addresses.
///
/// A page that no dump has is zeros, as it was in the task. One that is left to a page server fails here.
struct CRIUPages: Sendable {
    let index: CRIUPageIndex
    /// The mappings that have pages which are left to the daemon.
    let mappings: [AddressRange]
    private let files: [File]

    /// The pages of one dump.
    final class File: Sendable {
        let name: String
        let descriptor: OwnedDescriptor?

        init(name: String, _ descriptor: consuming OwnedDescriptor?) {
            self.name = name
            self.descriptor = descriptor
        }
    }

    init(index: CRIUPageIndex, files: [File], mappings: [AddressRange]) {
        self.index = index
        self.mappings = mappings
        self.files = files
    }

    /// The first pages that are left to the daemon and end after an address.
    func extent(from address: Int) -> Range<Int>? {
        let runs = index.levels[0].runs
        var next = index.levels[0].index(of: UInt64(address))
        while next < runs.count, !runs[next].isLazy { next += 1 }
        return next < runs.count ? Int(runs[next].start)..<Int(runs[next].end) : nil
    }

    /// Where the page at an address is, and those that follow it, see ``CRIUPageIndex/find(_:limit:)``.
    func find(_ address: Int, limit: Int) throws(CRIUImageError) -> CRIUPageIndex.Found {
        do throws(CRIUImageError.Reason) {
            return try index.find(UInt64(address), limit: limit)
        } catch {
            throw CRIUImageError("pagemap", error)
        }
    }

    /// Reads pages that a dump has.
    ///
    /// - Returns: How many bytes are there now: whole pages, less than was wanted only where the rest cannot be read.
    /// - Throws: What is wrong with the file, where not even one page could be read.
    @unsafe
    func read(
        level: Int, offset: Int, into room: UnsafeMutableRawBufferPointer
    ) throws(CRIUImageError) -> Int {
        let file = files[level]
        guard file.descriptor != nil else {
            throw CRIUImageError(file.name, .truncated(bytes: 0, expected: offset + room.count))
        }
        var count = 0
        var failure = CRIUImageError.Reason.truncated(bytes: 0, expected: offset + room.count)
        do throws(UserfaultError) {
            count = unsafe try file.descriptor!.read(into: room, at: offset)
            failure = .truncated(bytes: offset + count, expected: offset + room.count)
        } catch {
            count = error.bytesCompleted
            failure = .file(error)
        }
        count &= ~(PageSize.base.bytes - 1)
        guard count > 0 else { throw CRIUImageError(file.name, failure) }
        return count
    }
}
