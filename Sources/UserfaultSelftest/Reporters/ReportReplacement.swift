import CSelftestSupport
import Glibc
import SystemPackage

/// A report that takes the place of another when it is whole, and is called `FILE.partial` until then.
struct ReportReplacement {
    let descriptor: FileDescriptor
    private let directory: FileDescriptor
    private let place: ReportFile.Place
    /// What is replaced.
    private let old: (file: FileDescriptor, status: stat)

    var path: String { "\(place.directory)/\(name)" }
    private var name: String { Self.name(of: place) }

    private static func name(of place: ReportFile.Place) -> String { place.name + ".partial" }

    /// Nil for a file that has to be written in its place.
    ///
    /// Names may lead elsewhere at any time, so that all is compared with the file that was opened, and the folder is
    /// looked up once.
    init?(of file: FileDescriptor, _ status: stat, in place: ReportFile.Place) throws {
        // The owner and the other names of a file would not be those of the new one.
        guard status.st_size > 0, status.st_nlink == 1, status.st_uid == geteuid() else { return nil }
        directory = FileDescriptor(rawValue: try checked(css_open_folder(place.directory)))
        self.place = place
        old = (file, status)
        guard let found = Self.look(place.name, in: directory), Self.isSame(found, status),
            try ReportFile.status(of: directory).st_dev == status.st_dev,
            let descriptor = try Self.create(Self.name(of: place), in: directory, like: status)
        else {
            try? directory.close()
            return nil
        }
        self.descriptor = descriptor
    }

    /// Nil if the folder takes no such file, or has something else by that name.
    private static func create(_ name: String, in directory: FileDescriptor, like old: stat) throws -> FileDescriptor? {
        let flags = O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC
        var number = openat(directory.rawValue, name, flags | O_CREAT | O_EXCL, 0o600)
        let isNew = number >= 0
        // A run that was killed has left it, or a run writes it.
        if !isNew, errno == EEXIST { number = openat(directory.rawValue, name, flags) }
        guard number >= 0 else {
            let lacks = [EACCES, EPERM, EROFS, ENAMETOOLONG, ELOOP, EISDIR, ENXIO]
            guard lacks.contains(errno) else { throw Errno(rawValue: errno) }
            return nil
        }
        let file = FileDescriptor(rawValue: number)
        let status = try ReportFile.status(of: file)
        guard status.st_mode & S_IFMT == S_IFREG, status.st_nlink == 1, status.st_uid == old.st_uid,
            status.st_gid == old.st_gid
        else {
            if isNew { unlinkat(directory.rawValue, name, 0) }
            try file.close()
            return nil
        }
        // A run that has just ended has given it its name.
        guard ReportFile.lock(file), let found = look(name, in: directory), isSame(found, status) else {
            try file.close()
            throw ReportFile.Busy(name: name)
        }
        try file.resize(to: 0)
        try checked(fchmod(number, old.st_mode & 0o777) == 0 ? 0 : -errno)
        return file
    }

    /// Nil if there is nothing by that name.
    private static func look(_ name: String, in directory: FileDescriptor) -> stat? {
        var status = stat()
        return fstatat(directory.rawValue, name, &status, AT_SYMLINK_NOFOLLOW) == 0 ? status : nil
    }

    static func isSame(_ a: stat, _ b: stat) -> Bool { a.st_dev == b.st_dev && a.st_ino == b.st_ino }

    var hasText: Bool { ((try? ReportFile.status(of: descriptor))?.st_size ?? 0) > 0 }

    /// Whether it still has its name.
    var isThere: Bool {
        guard let found = Self.look(name, in: directory), let status = try? ReportFile.status(of: descriptor) else {
            return false
        }
        return Self.isSame(found, status)
    }

    func remove() { unlinkat(directory.rawValue, name, 0) }

    /// Puts the report in its place.
    func replace() throws {
        // Another report perhaps, which is not to be lost either.
        if case .another = oldName { throw Errno.fileExists }
        let answer = renameat(directory.rawValue, name, directory.rawValue, place.name)
        if answer == 0 { return }
        let error = Errno(rawValue: errno)
        // A file that is mounted there, or a folder that lets nobody replace it.
        guard case .there = oldName else { throw error }
        try copy()
        // Whoever has removed it meanwhile has removed the copy.
        guard case .there = oldName else { throw error }
        remove()
    }

    /// What has the name of the file that is replaced.
    private var oldName: OldName {
        guard let found = Self.look(place.name, in: directory) else { return .gone }
        return Self.isSame(found, old.status) ? .there : .another
    }

    private enum OldName { case there, gone, another }

    private func copy() throws {
        try old.file.resize(to: 0)
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        var offset: Int64 = 0
        while true {
            let count = try bytes.withUnsafeMutableBytes { try descriptor.read(fromAbsoluteOffset: offset, into: $0) }
            guard count > 0 else { break }
            try old.file.writeAll(toAbsoluteOffset: offset, bytes[..<count])
            offset += Int64(count)
        }
        try checked(fsync(old.file.rawValue) == 0 ? 0 : -errno)
    }
}
