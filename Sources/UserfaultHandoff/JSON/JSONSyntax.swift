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
            let line = before.count { $0 == UInt8(ascii: "\n") } + 1
            let column = before.reversed().prefix { $0 != UInt8(ascii: "\n") }.count + 1
            guard case .malformed(let text) = error else { return nil }
            return "line \(line), column \(column): \(text)"
        }
    }
}
