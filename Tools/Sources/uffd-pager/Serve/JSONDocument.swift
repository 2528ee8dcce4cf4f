import FoundationEssentials
@_spi(Programs) import UserfaultHandoff

/// What people write in JSON.
enum JSONDocument {
    /// - Throws: `DecodingError`, whose ``Swift/DecodingError/sentence`` says what is wrong where.
    static func read<Document: Decodable>(_: Document.Type, from data: Data) throws -> Document {
        do {
            return try JSONDecoder().decode(Document.self, from: data)
        } catch let error as DecodingError {
            guard case .dataCorrupted(let context) = error, context.codingPath.isEmpty else { throw error }
            // The decoder says only that something is not valid.
            let complaint = JSONSyntax.complaint(about: Array(data)).map { "this is no JSON, \($0)" }
            throw DecodingError.dataCorrupted(
                DecodingError.Context(
                    codingPath: [],
                    debugDescription: complaint
                        ?? "a number is negative, has a fraction, or is larger than what it is for"))
        }
    }
}
