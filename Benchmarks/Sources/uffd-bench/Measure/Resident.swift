import CBenchBaseline
import Foundation

/// How much memory the process has.
enum Resident {
    /// Its pages and its page tables, in bytes.
    static func bytes() throws -> Int {
        // The counts of /proc/self/status are approximate, but for the page tables'.
        let pages = try kibibytes("Rss:", of: "/proc/self/smaps_rollup")
        return (pages + (try kibibytes("VmPTE:", of: "/proc/self/status"))) << 10
    }

    /// Gives back what the allocator only keeps, and says how much there is.
    static func baseline() throws -> Int {
        cbb_trim()
        return try bytes()
    }

    private static func kibibytes(_ name: String, of path: String) throws -> Int {
        let text = try String(contentsOfFile: path, encoding: .utf8)
        guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix(name) }),
            let value = Int(line.filter(\.isNumber))
        else { throw Unavailable(reason: "\(path) does not say \(name)") }
        return value
    }
}
