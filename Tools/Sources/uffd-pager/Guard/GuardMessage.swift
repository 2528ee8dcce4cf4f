/// What the server tells its guard: 16 bytes, with descriptors.
enum GuardMessage: Equatable {
    /// Keep a client's userfaultfd and the pidfd of its process, which follow.
    case keep(UInt64)
    /// The client needs nobody any more.
    case forget(UInt64)

    static let byteCount = 16

    var bytes: [UInt8] {
        let (kind, id): (UInt64, UInt64) =
            switch self {
            case .keep(let id): (1, id)
            case .forget(let id): (2, id)
            }
        return [kind, id].flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64($0 * 8)) } }
    }

    init?(_ bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        let words = [0, 8].map { start in (0..<8).reduce(UInt64(0)) { $0 | UInt64(bytes[start + $1]) << UInt64($1 * 8) }
        }
        switch words[0] {
        case 1: self = .keep(words[1])
        case 2: self = .forget(words[1])
        default: return nil
        }
    }
}
