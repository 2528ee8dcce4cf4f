import ArgumentParser
import Glibc
import SystemPackage
import UserfaultFD

/// The names of descriptors that this program passes to itself: in a memory file, since the names of a thousand machines are more
/// than a variable of the environment may have.
struct PassedNames: ~Copyable {
    /// Holds the number of the memory file.
    static let variable = "UFFD_PAGER_NAMES"
    private static let separator = "\n"

    private let file: Memfd

    /// - Throws: ``Failure``, as whatever else keeps a child from starting: it is tried again.
    init(_ names: [String]) throws {
        let bytes = Array(names.joined(separator: Self.separator).utf8)
        do throws(UserfaultError) {
            let file = try Memfd(name: "pager-names", count: max(1, bytes.count))
            try file.write(bytes.span.bytes, at: 0)
            self.file = file
        } catch {
            throw Failure(.system, "the server cannot be started: \(error)")
        }
    }

    var number: Int32 { file.withUnsafeDescriptor { $0.rawValue } }

    /// The names that this process was passed, in the order of the descriptors.
    ///
    /// - Returns: `nil` if systemd has started it, or nobody.
    /// - Throws: ``Failure`` if they cannot be read: what was passed would be lost.
    static func take() throws -> [String]? {
        guard let text = getenv(variable).map({ String(cString: $0) }) else { return nil }
        unsetenv(variable)
        do {
            guard let number = Int32(text) else { throw Errno.badFileDescriptor }
            let file = FileDescriptor(rawValue: number)
            return try file.closeAfter {
                let count = Int(try file.seek(offset: 0, from: .end))
                let names = try String(unsafeUninitializedCapacity: count) { room in
                    try file.read(fromAbsoluteOffset: 0, into: UnsafeMutableRawBufferPointer(room))
                }
                return names.split(separator: separator, omittingEmptySubsequences: false).map(String.init)
            }
        } catch {
            throw Failure(.system, "what was kept for this process cannot be read: \(error)")
        }
    }
}
