import CSelftestSupport
import Glibc
import SystemPackage

/// The file that a report is written to.
///
/// If there is a report already, it stays until the new one is whole: a run that is killed leaves the old one, and beside
/// it what it has written itself. What cannot be replaced, or is no file of this user alone, is written in its place.
package struct ReportFile {
    package let output: ReportOutput
    /// Nil if the file is written in its place.
    private let replacement: ReportReplacement?

    package init(_ path: String) throws {
        let place = Place(path)
        if let place, place.isMagic {
            // Others go on writing there: it is neither truncated nor replaced, and its end is where the report begins.
            output = ReportOutput(try place.ownDescriptor() ?? Self.opened(path, atEnd: true))
            replacement = nil
            return
        }
        let (file, status) = try Self.locked(path) { try Self.opened($0) }
        guard status.st_mode & S_IFMT == S_IFREG else {
            output = ReportOutput(file)
            replacement = nil
            return
        }
        replacement = try place.flatMap { try ReportReplacement(of: file, status, in: $0) }
        if replacement == nil { try file.resize(to: 0) }
        output = ReportOutput(replacement?.descriptor ?? file, isOwnFile: true)
    }

    /// Ends the report, which takes the place of the one before if all of it was written.
    package func finish() {
        output.finish()
        guard let replacement else { return }
        output.attempt { try replacement.replace() }
        if output.failure != nil, !replacement.hasText { discard() }
    }

    /// Leaves nothing of a report that nothing was written to.
    package func discard() { replacement?.remove() }

    /// The file that has what was written, if the report could not be put in its place.
    package var kept: String? {
        guard let replacement, output.failure != nil, replacement.hasText, replacement.isThere else { return nil }
        return replacement.path
    }

    /// Another run writes the file.
    package struct Busy: Error, CustomStringConvertible {
        let name: String
        package var description: String { "another run is writing \(name)" }
    }

    private static func opened(_ path: String, atEnd: Bool = false) throws -> FileDescriptor {
        let file: FileDescriptor
        do {
            file = try FileDescriptor.open(FilePath(path), .writeOnly, options: .closeOnExec)
        } catch Errno.noSuchFileOrDirectory {
            // Only then: fs.protected_regular refuses to create what is another user's in /tmp, to root as well.
            file = try FileDescriptor.open(
                FilePath(path), .writeOnly, options: [.create, .closeOnExec],
                permissions: [.ownerReadWrite, .groupRead, .otherRead])
        }
        if atEnd { _ = try? file.seek(offset: 0, from: .end) }
        return file
    }

    /// Opens a file and locks it, if it is a regular one.
    ///
    /// A run that ends between the two puts its report in the place of what was opened, which has no name then.
    static func locked(
        _ path: String, opening open: (String) throws -> FileDescriptor
    ) throws -> (FileDescriptor, stat) {
        for _ in 0..<10 {
            let file = try open(path)
            guard try status(of: file).st_mode & S_IFMT == S_IFREG else { return (file, try status(of: file)) }
            let isLocked = lock(file)
            let status = try status(of: file)
            var named = stat()
            if isLocked, stat(path, &named) == 0, ReportReplacement.isSame(named, status) { return (file, status) }
            try file.close()
            guard isLocked else { break }
        }
        throw Busy(name: path)
    }

    static func status(of file: FileDescriptor) throws -> stat {
        var status = stat()
        try checked(fstat(file.rawValue, &status) == 0 ? 0 : -errno)
        return status
    }

    /// False if another run has it.
    ///
    /// The kernel lets go of it when the run ends. This is no lock of `flock`, which whoever starts the runs may have on the same file.
    static func lock(_ file: FileDescriptor) -> Bool {
        css_lock_file(file.rawValue) != -EAGAIN
    }
}

extension ReportFile {
    /// Where the name of a file leads to.
    struct Place {
        let directory: String
        private(set) var name: String

        /// Nil if it leads nowhere; opening the file tells why.
        init?(_ path: String) {
            var path = FilePath(path)
            for _ in 0..<40 {
                guard let name = path.lastComponent?.string else { return nil }
                let parent = path.removingLastComponent()
                guard let resolved = realpath(parent.isEmpty ? "." : parent.string, nil) else { return nil }
                defer { free(resolved) }
                let place = Self(directory: String(cString: resolved), name: name)
                guard !place.isMagic, let target = ProcFile.link("\(place.directory)/\(name)") else {
                    self = place
                    return
                }
                path = FilePath(place.directory).pushing(FilePath(target))
            }
            return nil
        }

        private init(directory: String, name: String) {
            self.directory = directory
            self.name = name
        }

        /// Whether it is in `/proc`, whose links, as that of `/dev/stdout`, lead to what somebody has opened.
        var isMagic: Bool {
            var status = css_statfs_answer()
            return css_statfs(directory, &status) == 0 && status.type == 0x9fa0
        }

        /// A duplicate of the descriptor of this process that it names, which goes on where others have stopped.
        func ownDescriptor() throws -> FileDescriptor? {
            guard directory == "/proc/\(getpid())/fd", let number = Int32(name) else { return nil }
            let flags = fcntl(number, F_GETFL)
            guard flags >= 0, flags & O_ACCMODE != O_RDONLY else { throw Errno.badFileDescriptor }
            let copy = fcntl(number, F_DUPFD_CLOEXEC, 3)
            return FileDescriptor(rawValue: try checked(copy >= 0 ? copy : -errno))
        }
    }
}
