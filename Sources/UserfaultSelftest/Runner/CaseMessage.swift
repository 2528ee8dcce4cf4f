import FoundationEssentials
import Glibc
import SystemPackage

/// What the process of a result tells the runner, one line of JSON each, as soon as it knows it.
enum CaseMessage: Codable {
    /// A lawful alternative that was seen, or something else worth keeping.
    case note(String)
    case passed
    case skipped(String)
    /// The reason is one line; the detail is all that is known.
    case failed(reason: String, detail: [String])
}

/// Lines of JSON through a descriptor.
struct MessageChannel: Sendable {
    let descriptor: FileDescriptor

    func send(_ message: some Encodable) {
        // A message that cannot be sent has no reader; the process ends on its own then.
        guard var line = try? JSONEncoder().encode(message) else { return }
        line.append(UInt8(ascii: "\n"))
        _ = try? descriptor.writeAll(line)
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
