import FoundationEssentials
import Glibc
import SystemPackage

/// The file that only root can lock, in which the run that has locked it keeps what it would have to undo.
///
/// It outlives a run that is killed together with its guardian, and the next run undoes what the journal names. The
/// file is left behind empty: a name that comes and goes cannot be locked safely.
final class RunFile {
    static let path = "/run/uffd-selftest.journal"

    let descriptor: FileDescriptor

    /// Nil for an ordinary user, and where nobody can write to `/run`.
    ///
    /// What root writes into files is read from this one, so that nobody else may be able to write it.
    init?(_ path: String = RunFile.path) {
        let flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC
        descriptor = FileDescriptor(rawValue: Glibc.open(path, flags, 0o600))
        guard descriptor.rawValue >= 0 else { return nil }
        var status = stat()
        guard fstat(descriptor.rawValue, &status) == 0, status.st_uid == 0, status.st_nlink == 1,
            status.st_mode & (S_IFMT | 0o077) == S_IFREG
        else {
            try? descriptor.close()
            return nil
        }
    }

    /// The file that the runner of this process has opened.
    init(inherited: FileDescriptor) { descriptor = inherited }

    deinit { try? descriptor.close() }

    /// What a run that was killed has left to undo; nil if it has left nothing.
    var journal: HostChanges.Journal? {
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = bytes.withUnsafeMutableBytes { try? descriptor.read(fromAbsoluteOffset: 0, into: $0) }
        let line = bytes[..<(count ?? 0)].prefix { $0 != UInt8(ascii: "\n") }
        let journal = try? JSONDecoder().decode(HostChanges.Journal.self, from: Data(line))
        return journal.flatMap { $0.undoings.isEmpty || $0.boot != HostChanges.Journal().boot ? nil : $0 }
    }

    func keep(_ journal: HostChanges.Journal) {
        guard var line = try? JSONEncoder().encode(journal) else { return }
        line.append(UInt8(ascii: "\n"))
        // The line is whole as soon as it is written; what follows it is of an earlier one.
        guard (try? descriptor.writeAll(toAbsoluteOffset: 0, line)) != nil else { return }
        try? descriptor.resize(to: journal.undoings.isEmpty ? 0 : Int64(line.count))
    }
}
