internal import SystemPackage
internal import UserfaultFD

/// A file that content is read from, which the value closes.
struct OwnedFile: ~Copyable, Sendable {
    let descriptor: OwnedDescriptor

    /// - Throws: ``PagerError/file(_:path:)`` with `EBADF` for what is not open.
    init(adopting rawValue: Int32) throws(PagerError) {
        _ = try asFileError { () throws(UserfaultError) in try FileStatus(of: rawValue) }
        descriptor = OwnedDescriptor(adopting: rawValue)
    }

    /// A second descriptor of a file that somebody else owns.
    init(duplicating rawValue: Int32) throws(PagerError) {
        descriptor = try asFileError { () throws(UserfaultError) in try OwnedDescriptor(duplicating: rawValue) }
    }

    /// What the kernel says of the file.
    func status() throws(PagerError) -> FileStatus {
        try asFileError { () throws(UserfaultError) in try descriptor.status() }
    }

    /// The size of a regular file or a block device, in bytes.
    func size() throws(PagerError) -> Int {
        let status = try status()
        if status.isBlockDevice {
            return try asFileError { () throws(UserfaultError) in try descriptor.deviceLength() }
        }
        guard status.isRegular else { throw .fileWithoutSize }
        // Content that the kernel makes up while it is read has no size, and is not empty for that.
        if status.count == 0, try hasContent() { throw .fileWithoutSize }
        return status.count
    }

    /// The first data that ends after an offset, in front of the content's end; `nil` if there is none.
    ///
    /// What cannot be asked has no holes.
    func extent(from offset: Int, end: Int) -> Range<Int>? {
        guard offset < end else { return nil }
        do throws(UserfaultError) {
            if let data = try descriptor.dataRange(from: offset) {
                return data.lowerBound < end ? data.clamped(to: offset..<end) : nil
            }
            // What a cut took is no hole: it fails.
            let cut = max(offset, try descriptor.status().count)
            return cut < end ? cut..<end : nil
        } catch {
            return offset..<end
        }
    }

    private func hasContent() throws(PagerError) -> Bool {
        var byte: UInt8 = 0
        return try asFileError { () throws(UserfaultError) in
            try unsafe withUnsafeMutableBytes(of: &byte) { (room) throws(UserfaultError) in
                unsafe try descriptor.read(into: room, at: 0) > 0
            }
        }
    }
}

/// Calls the kernel about a file, whose answer is the pager's.
func asFileError<Result: ~Copyable>(
    _ body: () throws(UserfaultError) -> Result
) throws(PagerError) -> Result {
    do throws(UserfaultError) {
        return try body()
    } catch {
        throw .file(error.errno)
    }
}
