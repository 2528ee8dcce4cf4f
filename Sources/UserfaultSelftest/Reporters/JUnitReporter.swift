/// JUnit's XML, in the form that continuous integration servers read: one suite for the run.
///
/// Written by hand: the XML packages for Swift bring all of Foundation, four times this program's size.
final class JUnitReporter: Reporter {
    let output: ReportOutput
    private var host: Host?
    private var results: [CaseResult] = []
    private var notes: [String] = []
    private var planned = 0

    init(output: ReportOutput) {
        self.output = output
    }

    func begin(_ plan: Plan, on host: Host) {
        self.host = host
        planned = plan.count
        if let unusable = host.unusable { note(unusable) }
    }

    func note(_ line: String) {
        notes.append(line)
    }

    func starting(_ result: SelectedResult) {}

    func finished(_ result: CaseResult) {
        results.append(result)
    }

    func end(_ totals: Totals, seconds: Double, signal: Int32?) {
        if let signal { note("stopped by \(SignalName.of(signal))") }
        let counts: KeyValuePairs = [
            "name": "uffd-selftest", "tests": "\(totals.all)", "failures": "\(totals.fail)", "errors": "0",
            "skipped": "\(totals.skip)", "time": Self.time(seconds),
        ]
        let properties = KeyValuePairs(
            dictionaryLiteral: ("kernel", host?.kernel ?? ""), ("machine", host?.machine ?? ""),
            ("features", host?.featureNames.joined(separator: " ") ?? ""), ("planned", "\(planned)"),
            ("interrupted", signal.map(SignalName.of) ?? ""))
        let suite = XMLElement("testsuite", counts) {
            [
                XMLElement("properties") {
                    properties.map { XMLElement("property", ["name": $0.key, "value": $0.value]) }
                }
            ]
                + results.map(Self.element) + [XMLElement("system-out", text: notes.joined(separator: "\n"))]
        }
        output.line("<?xml version=\"1.0\" encoding=\"UTF-8\"?>")
        output.write(XMLElement("testsuites") { [suite] }.serialized())
    }

    private static func element(of result: CaseResult) -> XMLElement {
        let memory = result.selected.memory?.rawValue
        let attributes: KeyValuePairs = [
            "name": result.selected.title, "classname": "userfaultfd.\(memory ?? "descriptor")",
            "time": time(result.seconds),
        ]
        let text = result.detail.joined(separator: "\n")
        let reason: KeyValuePairs = ["message": result.reason ?? ""]
        return XMLElement("testcase", attributes) {
            switch result.outcome {
            case .pass: text.isEmpty ? [] : [XMLElement("system-out", text: text)]
            case .skip: [XMLElement("skipped", reason)]
            case .fail: [XMLElement("failure", reason, text: text)]
            }
        }
    }

    private static func time(_ seconds: Double) -> String {
        let milliseconds = Int((seconds * 1000).rounded())
        let fraction = "\(milliseconds % 1000)"
        return "\(milliseconds / 1000).\(String(repeating: "0", count: 3 - fraction.count))\(fraction)"
    }
}

/// An element that is written, never read.
private struct XMLElement {
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

    func serialized(indent: String = "") -> String {
        let start = indent + "<\(name)" + attributes.map { " \($0.key)=\"\(Self.escaped($0.value))\"" }.joined()
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
