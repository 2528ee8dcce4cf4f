/// Where a text is no JSON, for messages to people: for this project's programs, and no part of the library's interface.
@_spi(Programs)
public enum JSONSyntax {
    /// What is wrong with a text, and where.
    ///
    /// - Parameter bytes: The text: one value.
    /// - Returns: A message with a line and a column in bytes, both from 1 on; `nil` if it is JSON.
    public static func complaint(about bytes: [UInt8]) -> String? {
        var reader = JSONReader(bytes)
        do throws(HandoffError) {
            try reader.skipValue()
            try reader.end()
            return nil
        } catch {
            let before = bytes.prefix(reader.position)
            let line = line(of: reader.position, in: bytes)
            let column = before.reversed().prefix { $0 != UInt8(ascii: "\n") }.count + 1
            guard case .malformed(let text) = error else { return nil }
            return "line \(line), column \(column): \(text)"
        }
    }

    /// In which line a text has a value, from 1 on; `nil` if it has no such value.
    public static func line(of path: [any CodingKey], in bytes: [UInt8]) -> Int? {
        var reader = JSONReader(bytes)
        guard let place = (try? reader.place(of: path[...])) ?? nil else { return nil }
        return line(of: place, in: bytes)
    }

    private static func line(of place: Int, in bytes: [UInt8]) -> Int {
        bytes.prefix(place).count { $0 == UInt8(ascii: "\n") } + 1
    }
}
