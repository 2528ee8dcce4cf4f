import ArgumentParser
import Glibc
import Synchronization

/// The files that machines write their records to: no two the same one, which each would write over.
final class RecordPlaces: Sendable {
    /// The machine, by the place.
    private let machines = Mutex<[String: String]>([:])

    /// - Throws: ``Failure`` with ``ExitCode/uncreatable``.
    func open(_ path: String, for machine: String) throws -> WorkingSetRecord {
        let record = try WorkingSetRecord(path)
        let place = try Self.place(of: path)
        let other = machines.withLock { machines in
            let other = machines[place]
            if other == nil { machines[place] = machine }
            return other
        }
        if let other { throw Failure(.uncreatable, "\(path) is the record of the machine '\(other)'") }
        return record
    }

    func leave(_ machine: String) {
        machines.withLock { machines in machines = machines.filter { $0.value != machine } }
    }

    /// The path without links in its folder: a file is put in place of a link at its end.
    private static func place(of path: String) throws -> String {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        let folder = parts.dropLast().joined(separator: "/")
        let start = folder.isEmpty ? path.hasPrefix("/") ? "/" : "." : folder
        guard let found = realpath(start, nil) else {
            throw Failure(.uncreatable, "\(path) cannot be written: \(String(cString: strerror(errno)))")
        }
        defer { free(found) }
        return "\(String(cString: found))/\(parts.last ?? "")"
    }
}
