import FoundationEssentials
@_spi(Programs) import UserfaultHandoff

/// What people write in JSON.
enum JSONDocument {
    /// What is wrong with a text, and in which line.
    struct Complaint: Error, CustomStringConvertible {
        let description: String
    }

    /// - Throws: ``Complaint``.
    static func read<Document: Decodable>(_: Document.Type, from data: Data) throws -> Document {
        do {
            return try JSONDecoder().decode(Document.self, from: data)
        } catch let error as DecodingError {
            let bytes = Array(data)
            if let complaint = JSONSyntax.complaint(about: bytes) {
                throw Complaint(description: "this is not valid JSON, \(complaint)")
            }
            let (path, text) = error.placeAndText
            let line = JSONSyntax.line(of: path, in: bytes).map { "line \($0): " } ?? ""
            var place = ""
            for key in path { place += key.intValue.map { "[\($0)]" } ?? (place.isEmpty ? "" : ".") + key.stringValue }
            throw Complaint(description: line + (place.isEmpty ? "" : "\(place): ") + text)
        }
    }
}

extension DecodingError {
    /// Of what value it is, and what is wrong with it.
    fileprivate var placeAndText: (path: [any CodingKey], text: String) {
        switch self {
        case .keyNotFound(let key, let context): (context.codingPath, "the key '\(key.stringValue)' is missing")
        case .typeMismatch(let type, let context): (context.codingPath, "this must be \(Self.words(type))")
        case .valueNotFound(let type, let context):
            (context.codingPath, "this must be \(Self.words(type)), and not null")
        case .dataCorrupted(let context): (context.codingPath, context.debugDescription)
        @unknown default: ([], "\(self)")
        }
    }

    private static func words(_ type: any Any.Type) -> String {
        if type == String.self { return "a text in quotes" }
        if type == Bool.self { return "true or false" }
        if type == Double.self { return "a number" }
        return "\(type)".hasPrefix("Array") ? "a list in [ ]" : "an object in { }"
    }
}

/// What a document is decoded from.
extension KeyedDecodingContainer {
    /// A value that has one of a few names.
    func decodeChoice<Choice: RawRepresentable<String> & CaseIterable>(_: Choice.Type, forKey key: Key) throws
        -> Choice?
    {
        guard let text = try decodeIfPresent(String.self, forKey: key) else { return nil }
        if let choice = Choice(rawValue: text) { return choice }
        let names = Choice.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
        throw DecodingError.dataCorruptedError(
            forKey: key, in: self, debugDescription: "\"\(text)\" is not one of \(names)")
    }

    /// A whole number: the decoder's own error does not say which key has one that does not fit.
    func decodeNumber(_ range: ClosedRange<Int>, forKey key: Key) throws -> Int? {
        try decodeIfPresent(Double.self, forKey: key).map { try whole($0, range, forKey: key) }
    }

    /// Whole numbers.
    func decodeNumbers(_ range: ClosedRange<Int>, forKey key: Key) throws -> [Int]? {
        try decodeIfPresent([Double].self, forKey: key)?.map { try whole($0, range, forKey: key) }
    }

    private func whole(_ number: Double, _ range: ClosedRange<Int>, forKey key: Key) throws -> Int {
        if let value = Int(exactly: number), range.contains(value) { return value }
        throw DecodingError.dataCorruptedError(
            forKey: key, in: self,
            debugDescription: "this must be a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
}

/// Any key of a document.
private struct AnyKey: CodingKey {
    let stringValue: String
    let intValue: Int? = nil

    init(stringValue: String) { self.stringValue = stringValue }
    init?(intValue: Int) { nil }
}

extension Decoder {
    /// A key that nobody reads is a slip of who wrote it.
    func refuseUnknownKeys<Keys: CodingKey & CaseIterable>(_: Keys.Type) throws {
        let known = Set(Keys.allCases.map(\.stringValue))
        let container = try container(keyedBy: AnyKey.self)
        guard let unknown = container.allKeys.first(where: { !known.contains($0.stringValue) }) else { return }
        throw DecodingError.dataCorruptedError(
            forKey: unknown, in: container,
            debugDescription: "this key is not known; the known ones are \(known.sorted().joined(separator: ", "))")
    }
}
