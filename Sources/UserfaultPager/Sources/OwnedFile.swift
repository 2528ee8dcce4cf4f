internal import CUserfaultFD
internal import SystemPackage
internal import UserfaultFD

/// A file, which the value closes.
struct OwnedFile: ~Copyable, Sendable {
    let rawValue: Int32

    deinit {
        _ = cuffd_close(rawValue)
    }

    init(adopting rawValue: Int32) {
        precondition(rawValue >= 0, "a descriptor is never negative")
        self.rawValue = rawValue
    }

    /// A second descriptor of a file that somebody else owns.
    init(duplicating rawValue: Int32) throws(PagerError) {
        let answer = cuffd_dup(rawValue)
        guard answer >= 0 else { throw .file(Errno(rawValue: -answer)) }
        self.init(adopting: answer)
    }

    /// What the kernel says of the file.
    func status() throws(PagerError) -> cuffd_file_status {
        var status = cuffd_file_status()
        let answer = unsafe cuffd_fstat(rawValue, &status)
        guard answer >= 0 else { throw .file(Errno(rawValue: -answer)) }
        return status
    }

    /// The size of a regular file or a block device, in bytes.
    func size() throws(PagerError) -> Int {
        let status = try status()
        if status.is_block_device != 0 { return try sizeOfDevice() }
        guard status.is_regular != 0 else { throw .fileWithoutSize }
        // Content that the kernel makes up while it is read has no size, and is not empty for that.
        if status.bytes == 0, try hasContent() { throw .fileWithoutSize }
        return Int(clamping: status.bytes)
    }

    private func sizeOfDevice() throws(PagerError) -> Int {
        // The offset is that of whoever else has the file open by this descriptor.
        let offset = cuffd_seek(rawValue, 0, CUFFD_SEEK_CUR)
        let size = cuffd_seek(rawValue, 0, CUFFD_SEEK_END)
        guard size >= 0 else { throw .file(Errno(rawValue: CInt(-size))) }
        _ = cuffd_seek(rawValue, offset, CUFFD_SEEK_SET)
        return Int(size)
    }

    private func hasContent() throws(PagerError) -> Bool {
        var byte: UInt8 = 0
        let answer = unsafe cuffd_pread(rawValue, &byte, 1, 0)
        guard answer >= 0 else { throw .file(Errno(rawValue: CInt(-answer))) }
        return answer > 0
    }
}
