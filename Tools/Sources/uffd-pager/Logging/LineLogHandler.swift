import ArgumentParser
import FoundationEssentials
import Logging
import Synchronization

/// How lines of the log look.
enum LogFormat: String, ExpressibleByArgument, CaseIterable, Sendable {
    /// `uffd-pager: message key=value …`, warnings and errors with their level.
    case text
    /// A JSON object a line: `time`, `level`, `message`, and every key of the metadata.
    case json
}

/// Writes each message of the log as a line to standard error.
struct LineLogHandler: LogHandler {
    var logLevel: Logger.Level
    var metadata: Logger.Metadata = [:]
    private let format: LogFormat

    init(_ format: LogFormat, level: Logger.Level) {
        self.format = format
        logLevel = level
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        let values = metadata.merging(event.metadata ?? [:]) { _, new in new }
        switch format {
        case .text: Standard.writeLine(Self.text(event.level, event.message, values))
        case .json: Standard.writeLine(Self.json(event.level, event.message, values, at: Date()))
        }
    }

    static func text(_ level: Logger.Level, _ message: Logger.Message, _ values: Logger.Metadata) -> String {
        let prefix = level >= .warning ? "\(level): " : ""
        let pairs = values.sorted { $0.key < $1.key }.map { " \($0.key)=\(quoted("\($0.value)"))" }
        return "uffd-pager: \(prefix)\(message)\(pairs.joined())"
    }

    /// A value that a reader can tell from its neighbours.
    private static func quoted(_ value: String) -> String {
        let isPlain = !value.isEmpty && value.unicodeScalars.allSatisfy { $0 > " " && $0 != "\"" && $0.isASCII }
        guard !isPlain else { return value }
        // An apostrophe needs no escape between these quotes.
        let escaped = value.unicodeScalars.map { $0 == "'" ? "'" : $0.escaped(asASCII: false) }
        return "\"\(escaped.joined())\""
    }

    static func json(
        _ level: Logger.Level, _ message: Logger.Message, _ values: Logger.Metadata, at time: Date
    ) -> String {
        var object = values.mapValues { "\($0)" }
        object["time"] = time.formatted(.iso8601)
        object["level"] = level.rawValue
        object["message"] = "\(message)"
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        guard let bytes = try? encoder.encode(object) else { return "" }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// The options of every command that serves.
struct LogOptions: ParsableArguments {
    @Option(help: "Format of the log on standard error.")
    var logFormat: LogFormat = .text

    @Flag(name: .shortAndLong, help: "Log nothing but errors.")
    var quiet = false

    @Flag(name: .shortAndLong, help: "Log what helps to find a problem.")
    var verbose = false

    var logger: Logger {
        let level: Logger.Level = quiet ? .error : verbose ? .debug : .info
        return Logger(label: "uffd-pager") { _ in LineLogHandler(logFormat, level: level) }
    }

    func validate() throws {
        if quiet && verbose { throw ValidationError("--quiet and --verbose exclude each other") }
    }
}
