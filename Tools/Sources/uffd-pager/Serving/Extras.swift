import Logging

/// What can be done without: if it is missing, a successor goes on all the same, since its clients need it more.
struct Extras {
    let isSuccessor: Bool
    let logger: Logger

    /// Runs the body, which opens something of this kind.
    ///
    /// - Returns: `nil` in a successor if the body throws.
    func open<Value>(_ what: String, _ body: () throws -> Value?) throws -> Value? {
        do {
            return try body()
        } catch {
            guard isSuccessor else { throw error }
            logger.error("the server goes on without \(what)", metadata: ["error": "\(error)"])
            return nil
        }
    }
}
