internal import CUserfaultFD
internal import SystemPackage

/// What `fstat(2)` and `fstatfs(2)` report about a file.
package struct FileStatus: Sendable {
    /// The file's length, in bytes.
    package let count: Int
    /// What it takes, in units of 512 bytes.
    package let blocks: Int
    /// The size of its pages: the huge page's on hugetlbfs, else the base page's, in bytes.
    package let pageBytes: Int
    package let device: UInt64
    package let inode: UInt64
    package let isRegular: Bool
    package let isDirectory: Bool
    package let isBlockDevice: Bool
    /// Whether the file lives in memory: tmpfs and memfd, hugetlbfs, guest_memfd.
    package let isMemoryFile: Bool

    package init(of rawDescriptor: Int32) throws(UserfaultError) {
        var status = cuffd_file_status()
        _ = try answer(to: .fileStatus) { unsafe cuffd_fstat(rawDescriptor, &status) }
        count = Int(clamping: status.bytes)
        blocks = Int(clamping: status.blocks)
        pageBytes = Int(clamping: status.page_size)
        device = status.device
        inode = status.inode
        isRegular = status.is_regular != 0
        isDirectory = status.is_directory != 0
        isBlockDevice = status.is_block_device != 0
        isMemoryFile = status.is_memory_file != 0
    }
}

extension OwnedDescriptor {
    /// Opens a file that is no symbolic link, for reading and writing, and makes it if it is not there: for its owner only.
    ///
    /// - Parameter isReadOnly: Opens a file that is there, for reading.
    package init(openingNoLink path: String, isReadOnly: Bool) throws(UserfaultError) {
        let access = isReadOnly ? CUFFD_O_RDONLY : CUFFD_O_RDWR | CUFFD_O_CREAT
        try self.init(opening: path, flags: access | CUFFD_O_NOFOLLOW | CUFFD_O_NONBLOCK)
    }

    /// Gives a file another path, in place of what is there.
    package static func rename(_ path: String, to other: String) throws(UserfaultError) {
        _ = try answer(to: .writeFile) { unsafe cuffd_rename(path, other) }
    }

    /// What the kernel reports about the file.
    package func status() throws(UserfaultError) -> FileStatus { try FileStatus(of: rawValue) }

    /// Reads up to the room's length at an offset, repeating the call until that much is read or the file ends.
    ///
    /// - Returns: The bytes that were read; less than the room only at the file's end.
    /// - Throws: ``UserfaultError``, whose ``UserfaultError/bytesCompleted`` says how far it got.
    @unsafe
    package func read(into room: UnsafeMutableRawBufferPointer, at offset: Int) throws(UserfaultError) -> Int {
        guard let start = room.baseAddress else { return 0 }
        var done = 0
        while done < room.count {
            let value = unsafe cuffd_pread(rawValue, start + done, room.count - done, Int64(offset + done))
            if value == 0 { break }
            if value == -Int(Errno.interrupted.rawValue) { continue }
            guard value > 0 else {
                throw UserfaultError(.readFile, errno: Errno(rawValue: CInt(-value)), bytesCompleted: done)
            }
            done += value
        }
        return done
    }

    /// Reads what the page cache has at an offset, by one call that does not wait for a disk.
    ///
    /// - Returns: The bytes that were read; 0 if it would have to wait, at the file's end, and if the file cannot be read.
    @unsafe
    package func readWithoutWaiting(into room: UnsafeMutableRawBufferPointer, at offset: Int) -> Int {
        guard let start = room.baseAddress else { return 0 }
        return unsafe max(0, cuffd_pread_now(rawValue, start, room.count, Int64(offset)))
    }

    /// Whether the file's system knows reading without waiting, and no filter of system calls refuses it.
    package var readsWithoutWaiting: Bool {
        var byte: UInt8 = 0
        let value = unsafe cuffd_pread_now(rawValue, &byte, 1, 0)
        return value >= 0 || value == -Int(Errno.resourceTemporarilyUnavailable.rawValue)
    }

    /// Writes all bytes at an offset, repeating the call until that much is written.
    ///
    /// - Throws: ``UserfaultError``, whose ``UserfaultError/bytesCompleted`` says how far it got.
    @unsafe
    package func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(UserfaultError) {
        guard let start = bytes.baseAddress else { return }
        try transferAll(bytes.count, .writeFile) { done in
            unsafe cuffd_pwrite(rawValue, start + done, bytes.count - done, Int64(offset + done))
        }
    }

    /// Fills the room from an offset on.
    ///
    /// - Throws: ``UserfaultError``, whose ``UserfaultError/bytesCompleted`` says how far it got; `ENODATA` at the file's
    ///   end.
    package func read(into room: inout MutableRawSpan, at offset: Int) throws(UserfaultError) {
        try unsafe room.withUnsafeMutableBytes { (buffer) throws(UserfaultError) in
            try transferAll(buffer.count, .readFile) { done in
                unsafe cuffd_pread(rawValue, buffer.baseAddress! + done, buffer.count - done, Int64(offset + done))
            }
        }
    }

    /// Writes all bytes at an offset.
    ///
    /// - Throws: ``UserfaultError``, whose ``UserfaultError/bytesCompleted`` says how far it got.
    package func write(_ bytes: RawSpan, at offset: Int) throws(UserfaultError) {
        try unsafe bytes.withUnsafeBytes { (buffer) throws(UserfaultError) in unsafe try write(buffer, at: offset) }
    }

    /// Makes the file longer or shorter.
    package func resize(to count: Int) throws(UserfaultError) {
        _ = try answer(to: .resize, retryOnInterrupt: true) { cuffd_ftruncate(rawValue, Int64(count)) }
    }

    /// Waits until what was written is on the disk.
    package func synchronize() throws(UserfaultError) {
        _ = try answer(to: .writeFile, retryOnInterrupt: true) { cuffd_fsync(rawValue) }
    }

    /// The length of a block device, in bytes.
    ///
    /// The position of the open file is at the end meanwhile, and then where it was.
    package func deviceLength() throws(UserfaultError) -> Int {
        // The position belongs to everybody who shares the open file.
        let position = try answer(to: .readFile) { cuffd_seek(rawValue, 0, CUFFD_SEEK_CUR) }
        let end = try answer(to: .readFile) { cuffd_seek(rawValue, 0, CUFFD_SEEK_END) }
        _ = try answer(to: .readFile) { cuffd_seek(rawValue, position, CUFFD_SEEK_SET) }
        return Int(end)
    }

    /// Where the file has data at or after an offset; `nil` if it has none until its end.
    package func dataOffset(from offset: Int) throws(UserfaultError) -> Int? {
        let value = cuffd_seek(rawValue, Int64(offset), CUFFD_SEEK_DATA)
        if value == -Int64(Errno.noSuchAddressOrDevice.rawValue) { return nil }
        return Int(try answer(to: .readFile) { value })
    }

    /// The first data that ends after an offset, up to the next hole; `nil` if there is none until the file's end.
    ///
    /// The position of the open file is elsewhere meanwhile, and then where it was.
    package func dataRange(from offset: Int) throws(UserfaultError) -> Range<Int>? {
        let position = try answer(to: .readFile) { cuffd_seek(rawValue, 0, CUFFD_SEEK_CUR) }
        defer { _ = cuffd_seek(rawValue, position, CUFFD_SEEK_SET) }
        guard let start = try dataOffset(from: offset) else { return nil }
        let end = try answer(to: .readFile) { cuffd_seek(rawValue, Int64(start), CUFFD_SEEK_HOLE) }
        return start..<max(start + 1, Int(end))
    }
}
