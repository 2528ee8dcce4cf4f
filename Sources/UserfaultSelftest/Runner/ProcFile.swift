import Glibc
import SystemPackage

/// Small files of the kernel, read whole.
///
/// What cannot be read is nil: a process may be gone, a kernel may lack the file.
enum ProcFile {
    static func text(_ path: String) -> String? {
        guard let file = try? FileDescriptor.open(path, .readOnly, options: [.closeOnExec]) else { return nil }
        return try? file.closeAfter {
            var bytes: [UInt8] = []
            while true {
                let chunk = try [UInt8](unsafeUninitializedCapacity: 16384) { buffer, count in
                    count = try file.read(into: UnsafeMutableRawBufferPointer(buffer))
                }
                guard !chunk.isEmpty else { return String(decoding: bytes, as: UTF8.self) }
                bytes += chunk
            }
        }
    }

    /// The text without the line end.
    static func line(_ path: String) -> String? {
        text(path).map { String($0.prefix { $0 != "\n" }) }
    }

    /// The number after `name:` in a file such as `/proc/meminfo`, in the file's own unit.
    static func number(_ name: String, in path: String) -> Int? {
        text(path)?.split(separator: "\n").first { $0.hasPrefix(name + ":") }
            .flatMap { $0.split { $0 == " " || $0 == "\t" }.dropFirst().first }.flatMap { Int($0) }
    }

    /// The number after `name` and a space, in a file such as `/proc/vmstat`.
    static func count(_ name: String, in path: String) -> Int? {
        text(path)?.split(separator: "\n").first { $0.hasPrefix(name + " ") }
            .flatMap { $0.split(separator: " ").last }.flatMap { Int($0) }
    }

    static func entries(_ directory: String) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != "." && name != ".." { names.append(name) }
        }
        return names.sorted()
    }

    static func link(_ path: String) -> String? {
        let bytes = [UInt8](unsafeUninitializedCapacity: Int(PATH_MAX)) { buffer, count in
            count = max(0, readlink(path, buffer.baseAddress!, buffer.count))
        }
        return bytes.isEmpty ? nil : String(decoding: bytes, as: UTF8.self)
    }

    /// Writes `value`; nil on success.
    static func write(_ value: String, to path: String) -> Errno? {
        do {
            let file = try FileDescriptor.open(path, .writeOnly, options: [.closeOnExec])
            try file.closeAfter { _ = try file.writeAll(value.utf8) }
            return nil
        } catch {
            return error as? Errno ?? .ioError
        }
    }
}
