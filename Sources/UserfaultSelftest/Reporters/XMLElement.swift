/// An element that is written, never read.
struct XMLElement {
    private let name: String
    private let attributes: KeyValuePairs<String, String>
    private let text: String
    private let children: [XMLElement]

    init(
        _ name: String, _ attributes: KeyValuePairs<String, String> = [:], text: String = "",
        children: () -> [XMLElement] = { [] }
    ) {
        self.name = name
        self.attributes = attributes
        self.text = text
        self.children = children()
    }

    /// Attributes as they stand in a start tag.
    static func text(of attributes: KeyValuePairs<String, String>) -> String {
        attributes.map { " \($0.key)=\"\(escaped($0.value))\"" }.joined()
    }

    func serialized(indent: String = "") -> String {
        let start = indent + "<\(name)" + Self.text(of: attributes)
        guard !text.isEmpty || !children.isEmpty else { return start + "/>\n" }
        guard !children.isEmpty else { return start + ">\(Self.escaped(text, "\n"))</\(name)>\n" }
        return start + ">\n" + children.map { $0.serialized(indent: indent + "  ") }.joined() + indent + "</\(name)>\n"
    }

    /// Text for attributes, and for content, which may hold more.
    ///
    /// XML cannot hold most control characters at all; they become `?`.
    private static func escaped(_ text: String, _ newline: String = "&#10;") -> String {
        var escaped = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": escaped += "&amp;"
            case "<": escaped += "&lt;"
            case ">": escaped += "&gt;"
            case "\"": escaped += "&quot;"
            case "\n": escaped += newline
            case "\t": escaped += "&#9;"
            case "\u{0}"..<" ", "\u{fffe}", "\u{ffff}": escaped += "?"
            default: escaped.unicodeScalars.append(scalar)
            }
        }
        return escaped
    }
}
