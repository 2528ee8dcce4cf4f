/// What `criu restore --lazy-pages` says over its socket, understood byte by byte.
///
/// For each task its process id comes as four bytes, then one byte with the task's userfaultfd; for a task without memory of
/// its own, the negative of its process id and nothing else. When all tasks run, the word `RSTF` comes, and the end.
/// Bytes may come in any pieces: a descriptor belongs to the byte that it came with or that follows.
struct CRIUConversation {
    enum Event: Hashable {
        /// A task's userfaultfd: the next of the descriptors that were received.
        case task(Int32)
        /// A task without a userfaultfd.
        case taskWithoutMemory(Int32)
        /// All tasks are restored, and run.
        case restored
    }

    /// What is wrong with what was said.
    enum Violation: Error, Hashable {
        /// A process id that no process has.
        case badProcessID(Int32)
        /// A task's userfaultfd did not come.
        case missingDescriptor(Int32)
        /// A task was named twice.
        case repeated(Int32)
        /// Something was said after the end.
        case surplus
        /// More was said than all tasks have to say.
        case tooMany
    }

    private static let restored: UInt32 = 0x5253_5446
    private static let greatestProcessID: Int32 = 1 << 22

    private var word: UInt32 = 0
    private var bytesOfWord = 0
    private var awaiting: Int32?
    private var named: Set<Int32> = []
    private let limit: Int

    /// Whether all tasks are restored.
    private(set) var isRestored = false

    /// - Parameter limit: The most tasks.
    init(limit: Int) {
        self.limit = limit
    }

    /// Whether the other side may hang up now without having left anything unsaid.
    var isBetweenMessages: Bool { bytesOfWord == 0 && awaiting == nil }

    /// Takes in one byte.
    ///
    /// - Parameter descriptors: How many descriptors have come that no task has taken.
    mutating func take(_ byte: UInt8, descriptors: Int) throws(Violation) -> Event? {
        guard !isRestored else { throw .surplus }
        if let task = awaiting {
            guard descriptors > 0 else { throw .missingDescriptor(task) }
            awaiting = nil
            return .task(task)
        }
        word |= UInt32(byte) << UInt32(8 * bytesOfWord)
        bytesOfWord += 1
        guard bytesOfWord == 4 else { return nil }
        defer { (word, bytesOfWord) = (0, 0) }
        if word == Self.restored {
            isRestored = true
            return .restored
        }
        let value = Int32(bitPattern: word)
        guard value != 0, value.magnitude <= Self.greatestProcessID.magnitude else { throw .badProcessID(value) }
        let task = Int32(value.magnitude)
        guard named.insert(task).inserted else { throw .repeated(task) }
        guard named.count <= limit else { throw .tooMany }
        guard value > 0 else { return .taskWithoutMemory(task) }
        awaiting = task
        return nil
    }
}

extension CRIUConversation.Violation: CustomStringConvertible {
    var description: String {
        switch self {
        case .badProcessID(let id): "\(id) is not a process id"
        case .missingDescriptor(let task): "no userfaultfd came for task \(task)"
        case .repeated(let task): "task \(task) was named twice"
        case .surplus: "more was said after the tasks were restored"
        case .tooMany: "more tasks were named than were dumped"
        }
    }
}
