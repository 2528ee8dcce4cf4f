import FoundationEssentials

/// JUnit's XML, in the form that continuous integration servers read: one suite for the run.
///
/// The suite's counts come before its results. A file gets both as the run goes; elsewhere all is written at the end.
/// Written by hand: the XML packages for Swift bring all of Foundation, four times this program's size.
final class JUnitReporter: Reporter {
    let output: ReportOutput
    private var notes: [String] = []
    private var totals = Totals()
    private let start = ContinuousClock.now
    /// When the run began, in UTC and without a time zone, as the format has it.
    private let timestamp = String(Date().formatted(.iso8601).dropLast())
    /// The results that are not written yet.
    private var pending = ""

    init(output: ReportOutput) {
        self.output = output
    }

    func begin(_ plan: Plan, on host: Host) {
        if let unusable = host.unusable { notes.append(unusable) }
        let facts = [
            ("selftest", Version.text), ("kernel", host.kernel), ("machine", host.machine),
            ("features", host.featureNames.joined(separator: " ")), ("planned", "\(plan.count)"),
        ]
        let properties = (facts + host.facts.map { ($0.name, $0.value) }).map {
            XMLElement("property", ["name": $0.0, "value": $0.1])
        }
        pending = XMLElement("properties") { properties }.serialized(indent: "    ")
        if output.isRewritable {
            output.write(head)
            writePending()
        }
    }

    func note(_ line: String) {
        notes.append(line)
    }

    func starting(_ result: SelectedResult) {}

    func finished(_ result: CaseResult) {
        totals.count(result)
        pending += Self.element(of: result).serialized(indent: "    ")
        if output.isRewritable { writePending() }
    }

    /// Writes what is known now as a whole document.
    private func writePending() {
        output.write(pending, closing: closing(Self.unfinished))
        output.rewriteStart(head)
        pending = ""
    }

    func end(_ totals: Totals, seconds: Double, stop: Runner.Stop?) {
        self.totals = totals
        let closing = closing(stop.map { "stopped by \($0)" })
        if output.isRewritable {
            output.write(closing)
            output.rewriteStart(head)
        } else {
            output.write(head + pending + closing)
        }
    }

    private static let unfinished = "the report was not finished"

    /// The beginning of the document, always of the same length.
    private var head: String {
        let counts: KeyValuePairs = [
            "name": "uffd-selftest", "tests": "\(totals.all)", "failures": "\(totals.fail)", "errors": "0",
            "skipped": "\(totals.skip + totals.xfail)", "time": Self.time((ContinuousClock.now - start).inSeconds),
            "timestamp": timestamp,
        ]
        let attributes = XMLElement.text(of: counts)
        let room = String(repeating: " ", count: max(0, 192 - attributes.utf8.count))
        return "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite\(attributes)\(room)>\n"
    }

    /// The end of the document, with what is known only then.
    private func closing(_ end: String?) -> String {
        let log = XMLElement("system-out", text: (notes + (end.map { [$0] } ?? [])).joined(separator: "\n"))
        return log.serialized(indent: "    ") + "  </testsuite>\n</testsuites>\n"
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
            case .skip, .xfail: [XMLElement("skipped", reason)]
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
