internal import CUserfaultFD
internal import SystemPackage

/// Small text files of /proc and /sys.
enum ProcFile {
    /// The first `limit` bytes of a file as text, or `nil` where it cannot be opened or read.
    static func text(_ path: String, limit: Int = 16384) -> String? {
        try? read(path, limit: limit, for: .status)
    }

    /// The first `limit` bytes of a file as text.
    static func read(
        _ path: String, limit: Int = 16384, for operation: UserfaultError.Operation
    ) throws(UserfaultError) -> String {
        let opened = unsafe cuffd_open(path, CUFFD_O_RDONLY | CUFFD_O_CLOEXEC)
        guard opened >= 0 else { throw UserfaultError(operation, answer: opened) }
        let file = OwnedDescriptor(adopting: opened)
        var answer = 0
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
            while count < buffer.count {
                answer = unsafe cuffd_read(file.rawValue, buffer.baseAddress! + count, buffer.count - count)
                if answer == -Int(Errno.interrupted.rawValue) { continue }
                guard answer > 0 else { break }
                count += answer
            }
        }
        guard answer >= 0 else { throw UserfaultError(operation, answer: answer) }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The rest of the line that begins with `key`, without the white space around it.
    static func value(of key: String, in text: String) -> Substring? {
        for line in text.split(separator: "\n") where line.hasPrefix(key) {
            let value = line.dropFirst(key.count).drop { $0 == " " || $0 == "\t" }
            return value.prefix { $0 != "\n" }
        }
        return nil
    }
}
