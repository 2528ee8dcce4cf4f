internal import SystemPackage

/// Small text files of /proc and /sys.
package enum ProcFile {
    /// The first `limit` bytes of a file as text, or `nil` if it cannot be opened or read.
    package static func text(_ path: String, limit: Int = 16384) -> String? {
        try? read(path, limit: limit, for: .status)
    }

    /// The first `limit` bytes of a file as text.
    package static func read(
        _ path: String, limit: Int = 16384, for operation: UserfaultError.Operation
    ) throws(UserfaultError) -> String {
        let file = try OwnedDescriptor(opening: path, for: operation)
        var failure: UserfaultError?
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: limit) { buffer, count in
            do throws(UserfaultError) {
                count = unsafe try file.read(into: UnsafeMutableRawBufferPointer(buffer), at: 0)
            } catch {
                failure = error
            }
        }
        if let failure { throw UserfaultError(operation, errno: failure.errno) }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The rest of the line that begins with `key`, without the white space before it.
    package static func value(of key: String, in text: String) -> Substring? {
        for line in text.split(separator: "\n") where line.hasPrefix(key) {
            return line.dropFirst(key.count).drop { $0 == " " || $0 == "\t" }
        }
        return nil
    }
}
