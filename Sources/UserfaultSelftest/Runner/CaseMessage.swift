import FoundationEssentials
import Glibc
import SystemPackage

/// What the process of a result tells the runner, one line of JSON each, as soon as it knows it.
enum CaseMessage: Codable {
    /// A lawful alternative that was seen, or something else worth keeping.
    case note(String)
    case passed
    case skipped(String, SkipCause)
    /// The reason is one line; the detail is all that is known.
    case failed(reason: String, detail: [String])
    /// What the process that measures has found.
    case means(Means)

    /// The exit code of a case that is run by hand, in the manner of a whole run.
    var exitCode: Int32 {
        switch self {
        case .failed: 1
        case .skipped: 4
        case .passed, .note, .means: 0
        }
    }
}

/// Lines of JSON through a descriptor.
struct MessageChannel: Sendable {
    let descriptor: FileDescriptor

    /// Sends a message; answers whether somebody can have read it.
    ///
    /// A message that cannot be sent has no reader; the process ends on its own then.
    @discardableResult
    func send(_ message: some Encodable) -> Bool {
        guard var line = try? JSONEncoder().encode(message) else { return false }
        line.append(UInt8(ascii: "\n"))
        return (try? descriptor.writeAll(line)) != nil
    }
}

/// Bytes collected from a pipe, cut into messages.
struct MessageBuffer {
    private var bytes: [UInt8] = []

    mutating func append(_ more: some Sequence<UInt8>) {
        bytes += more
    }

    /// Takes the messages that have arrived whole.
    ///
    /// A line that is not one, from a process that went astray, is dropped.
    mutating func take<Message: Decodable>(_ type: Message.Type) -> [Message] {
        guard let end = bytes.lastIndex(of: UInt8(ascii: "\n")) else { return [] }
        let lines = bytes[...end].split(separator: UInt8(ascii: "\n"))
        bytes.removeSubrange(...end)
        return lines.compactMap { try? JSONDecoder().decode(type, from: Data($0)) }
    }
}
