import FoundationEssentials

/// A JSON object with one long array, which is written as its elements come.
final class JSONStream {
    private let output: ReportOutput
    private var isEmpty = true

    /// Writes the object's first members and begins the array.
    init(_ output: ReportOutput, head: some Encodable, array: String, tail: some Encodable) {
        self.output = output
        output.write("{\(Self.members(of: head)),\n\"\(array)\": [", closing: Self.closing(tail))
    }

    /// Writes an element.
    ///
    /// - Parameter tail: The object's last members, should nothing come any more.
    func append(_ element: some Encodable, tail: some Encodable) {
        output.write("\(isEmpty ? "" : ",")\n\(Self.text(of: element))", closing: Self.closing(tail))
        isEmpty = false
    }

    func end(tail: some Encodable) {
        output.write(Self.closing(tail))
    }

    private static func closing(_ tail: some Encodable) -> String {
        let members = members(of: tail)
        return "\n]\(members.isEmpty ? "" : ",")\(members)\n}\n"
    }

    /// The members of an object, without its braces.
    private static func members(of value: some Encodable) -> Substring {
        text(of: value).dropFirst().dropLast()
    }

    private static func text(of value: some Encodable) -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let data = try? encoder.encode(value) else { preconditionFailure("a report is always encodable") }
        return String(decoding: data, as: UTF8.self)
    }
}
