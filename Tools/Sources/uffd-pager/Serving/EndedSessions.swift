/// Sessions of which somebody has waited for the end.
struct EndedSessions: Sendable {
    let count: Int
    /// What was lost of those that were to be loaded, a sentence each.
    var losses: [String] = []

    /// All losses, or `nil` if there are none.
    var loss: String? {
        guard !losses.isEmpty else { return nil }
        let most = 4
        let further = losses.count > most ? ["and so for \(losses.count - most) further processes"] : []
        return (losses.prefix(most) + further).joined(separator: "; ")
    }
}
