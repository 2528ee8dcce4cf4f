/// Whose doing it is that a result was skipped.
package enum SkipCause: String, Codable, Sendable {
    /// The kernel does not have what the result needs.
    case kernel
    /// The host has not, or this user may not use it; the reason tells what helps.
    case host
    /// The options of the run keep the result from running.
    case options
    /// Chance or other programs kept the result from a verdict, and another run may come to one.
    case chance
}

/// Why a result cannot run.
struct Lack {
    let reason: String
    let cause: SkipCause

    static func kernel(_ reason: String) -> Lack { Lack(reason: reason, cause: .kernel) }
    static func host(_ reason: String) -> Lack { Lack(reason: reason, cause: .host) }
    static func chance(_ reason: String) -> Lack { Lack(reason: reason, cause: .chance) }
    static func options(_ reason: String) -> Lack { Lack(reason: reason, cause: .options) }

    /// - Parameter need: What is needed, if the refusal does not say enough.
    static func refused(_ refusal: Guardian.Refusal, _ need: String? = nil) -> Lack {
        Lack(reason: need.map { "\($0): \(refusal.reason)" } ?? refusal.reason, cause: refusal.cause)
    }
}
