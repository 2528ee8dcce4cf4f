import CSelftestSupport
import Glibc
import SystemPackage

/// What is known of the terminal, and the few control sequences that the pretty report uses.
enum Terminal {
    static func width(of descriptor: FileDescriptor) -> Int? {
        let columns = Int(css_terminal_columns(descriptor.rawValue))
        return columns < 0 ? nil : columns > 0 ? columns : 80
    }

    /// Colours only on a terminal that has them, and never where NO_COLOR says otherwise.
    static func showsColour(on descriptor: ReportOutput) -> Bool {
        descriptor.terminalWidth != nil && getenv("NO_COLOR").map { $0.pointee == 0 } ?? true
            && getenv("TERM").map { String(cString: $0) != "dumb" } ?? false
    }

    static let eraseLine = "\r\u{1b}[K"

    enum Style: Int {
        case bold = 1
        case dim = 2
        case red = 31
        case green = 32
        case yellow = 33

        func callAsFunction(_ text: String) -> String { "\u{1b}[\(rawValue)m\(text)\u{1b}[0m" }
    }
}
