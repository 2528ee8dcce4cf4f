import Glibc
import SystemPackage

/// The file that a report is written to.
///
/// If there is a report already, it stays until the new one is whole: a run that is killed leaves the old one, and beside
/// it what it has written itself.
package struct ReportFile {
    package let output: ReportOutput
    /// What is written, and what it is called in the end; nil if the file is written in its place.
    private let names: (new: String, final: String)?

    package init(_ path: String) throws {
        if let target = Self.written(path), let descriptor = Self.create(beside: target) {
            names = (Self.new(target.path), target.path)
            output = ReportOutput(descriptor, isOwnFile: true)
        } else {
            names = nil
            output = ReportOutput(
                try FileDescriptor.open(
                    FilePath(path), .writeOnly, options: [.create, .truncate, .closeOnExec],
                    permissions: [.ownerReadWrite, .groupRead, .otherRead]), isOwnFile: true)
        }
    }

    /// What the new report is called until it is whole.
    private static func new(_ path: String) -> String { path + ".partial" }

    /// A regular file that is not empty, by its own name.
    private static func written(_ path: String) -> (path: String, status: stat)? {
        var status = stat()
        guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_size > 0,
            let resolved = realpath(path, nil)
        else { return nil }
        defer { free(resolved) }
        return (String(cString: resolved), status)
    }

    /// Nil if nothing can be created beside the file.
    private static func create(beside target: (path: String, status: stat)) -> FileDescriptor? {
        let new = new(target.path)
        // What a run has left that was killed; and nobody else may have made what this run writes to.
        unlink(new)
        let descriptor = open(new, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { return nil }
        _ = fchown(descriptor, target.status.st_uid, target.status.st_gid)
        _ = fchmod(descriptor, target.status.st_mode & 0o777)
        return FileDescriptor(rawValue: descriptor)
    }

    /// Ends the report, which takes the place of the one before if all of it was written.
    package func finish() {
        output.finish()
        guard let names else { return }
        if output.failure == nil { output.attempt { try checked(rename(names.new, names.final) == 0 ? 0 : -errno) } }
        if output.failure != nil { unlink(names.new) }
    }
}
