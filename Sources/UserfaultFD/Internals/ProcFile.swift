internal import CUserfaultFD

/// Small text files of /proc and /sys.
enum ProcFile {
    /// The first `limit` bytes of a file as text, or `nil` where it cannot be opened or read.
    static func text(_ path: String, limit: Int = 16384) -> String? {
        let answer = unsafe cuffd_open(path, CUFFD_O_RDONLY | CUFFD_O_CLOEXEC)
        guard answer >= 0 else { return nil }
        let file = OwnedDescriptor(adopting: answer)
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
            while count < buffer.count {
                let read = unsafe cuffd_read(file.rawValue, buffer.baseAddress! + count, buffer.count - count)
                guard read > 0 else { break }
                count += read
            }
        }
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
