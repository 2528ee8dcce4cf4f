import Glibc
import SystemPackage
import UserfaultFD

/// "Keep these descriptors under a name", and "forget what is kept under a name": as systemd's manager is told it, and as
/// this program's own processes are.
enum StoreMessage: Equatable {
    /// Keep the descriptors that come with it, besides those that are kept under the name already.
    case put(String)
    /// Keep these in place of what is kept under the name. Only processes of this program know it, and one that does not keeps
    /// them besides.
    case replace(String)
    case remove(String)

    /// No message is longer.
    static var byteLimit: Int { 1024 }

    var text: String {
        switch self {
        // The manager would drop a descriptor that polls as an error, as a process that has ended may.
        case .put(let name): "FDSTORE=1\nFDNAME=\(name)\nFDPOLL=0"
        case .replace(let name): "\(Self.put(name).text)\n\(Self.replacing)"
        case .remove(let name): "FDSTOREREMOVE=1\nFDNAME=\(name)"
        }
    }

    private static var replacing: String { "REPLACES=1" }

    /// Of which a process of this program tells whether it was taken.
    func text(asking sequence: UInt64) -> String { "\(text)\nSEQUENCE=\(sequence)" }

    /// Under which number the answer is awaited.
    static func sequence(in text: String) -> UInt64? {
        text.split(separator: "\n").first { $0.hasPrefix("SEQUENCE=") }.flatMap {
            UInt64($0.dropFirst("SEQUENCE=".count))
        }
    }

    init?(_ text: String) {
        let lines = text.split(separator: "\n")
        guard let name = lines.first(where: { $0.hasPrefix("FDNAME=") })?.dropFirst("FDNAME=".count), !name.isEmpty
        else {
            return nil
        }
        if lines.contains("FDSTORE=1") {
            self = lines.contains(where: { $0 == Self.replacing }) ? .replace(String(name)) : .put(String(name))
        } else if lines.contains("FDSTOREREMOVE=1") {
            self = .remove(String(name))
        } else {
            return nil
        }
    }
}

/// Whether descriptors are kept, as this program's own processes tell each other: nine bytes.
struct StoreAnswer: Equatable {
    let sequence: UInt64
    let isTaken: Bool

    static var byteLimit: Int { 9 }

    init(sequence: UInt64, isTaken: Bool) {
        self.sequence = sequence
        self.isTaken = isTaken
    }

    var bytes: [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: sequence >> ($0 * 8)) } + [isTaken ? 1 : 0] }

    init?(_ bytes: [UInt8]) {
        guard bytes.count == Self.byteLimit else { return nil }
        sequence = (0..<8).reduce(0) { $0 | UInt64(bytes[$1]) << ($1 * 8) }
        isTaken = bytes[8] == 1
    }
}

/// Under which name what is kept.
enum KeptName {
    /// A client: its userfaultfd, a pidfd, and if a successor can serve it the state of its pager and a ``KeptRecord``.
    static func client(_ id: Int) -> String { "client.\(id)" }
    /// The memory file of a client.
    static func file(_ id: Int) -> String { "file.\(id)" }
    /// A peer that hands its memory over: its connection, and a pidfd as soon as something of its message may have been read.
    static func arrival(_ id: Int) -> String { "arrival.\(id)" }
    /// The socket of a machine, and what describes the machine, if a request has added it.
    static func machine(_ name: String) -> String { "machine.\(name)" }
    /// There is something, and a machine is paused.
    static func paused(_ name: String) -> String { "paused.\(name)" }
    /// There is something, and a client was not served to its end.
    static let failed = "failed"
    /// When the service has started, see ``Restarts``.
    static let restarts = "restarts"
    /// The process that serves now, for its guard.
    static let server = "server"

    static func isClient(_ name: String) -> Bool { client(in: name) != nil }
    /// Whether what is kept under the name takes at most half of all room: it is no client, and clients need the rest.
    static func leavesHalf(_ name: String) -> Bool { isArrival(name) || machine(in: name) != nil }
    static func isArrival(_ name: String) -> Bool { rest(of: name, after: "arrival.") != nil }
    static func client(in name: String) -> Int? { rest(of: name, after: "client.").flatMap { Int($0) } }
    static func file(in name: String) -> Int? { rest(of: name, after: "file.").flatMap { Int($0) } }
    static func machine(in name: String) -> String? { rest(of: name, after: "machine.") }
    static func paused(in name: String) -> String? { rest(of: name, after: "paused.") }

    /// Whether it is one of those that a server keeps descriptors under.
    static func isOwn(_ name: String) -> Bool {
        isClient(name) || isArrival(name) || file(in: name) != nil || machine(in: name) != nil
            || paused(in: name) != nil || name == failed
    }

    private static func rest(of name: String, after prefix: String) -> String? {
        name.hasPrefix(prefix) ? String(name.dropFirst(prefix.count)) : nil
    }
}

extension Memfd {
    /// What is kept under a name that says everything.
    static func note() throws(UserfaultError) -> Memfd { try Memfd(name: "pager-note", count: 1) }
}

/// Descriptors, each under a name.
struct Shelf {
    private(set) var kept: [String: [Int32]] = [:]

    /// Whether there is room for further descriptors, so that all can be passed to a child: that takes as many again.
    ///
    /// - Parameter isReplacing: Whether they take the place of those under the name, which have their room.
    private func hasRoom(for count: Int, under name: String, isReplacing: Bool) -> Bool {
        var limit = rlimit()
        getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        let most = limit.rlim_cur == .max ? Int.max : Int(clamping: limit.rlim_cur)
        let room = (most - Self.ownDescriptors) / 2
        let replaced = isReplacing ? kept[name]?.count ?? 0 : 0
        let share = KeptName.leavesHalf(name) && replaced == 0 ? room / 2 : room
        return kept.values.reduce(0) { $0 + $1.count } - replaced + count <= share
    }

    /// What a process needs besides, amply.
    private static var ownDescriptors: Int { 32 }

    /// Owns the descriptors from now on.
    mutating func put(_ name: String, _ numbers: [Int32]) { kept[name, default: []] += numbers }

    mutating func remove(_ name: String) {
        for number in kept.removeValue(forKey: name) ?? [] { close(number) }
    }

    /// The descriptors are the caller's from now on.
    mutating func take(_ name: String) -> [Int32] { kept.removeValue(forKey: name) ?? [] }

    /// The names of clients.
    var clients: [String] { kept.keys.filter(KeptName.isClient) }

    /// Whether there are peers that were handing their memory over.
    var hasArrivals: Bool { kept.keys.contains(where: KeptName.isArrival) }

    /// Takes one message, and says that it was taken.
    ///
    /// - Returns: `false` at the end of the stream.
    mutating func take(messageFrom socket: FileDescriptor) -> Bool {
        guard var message = try? DescriptorPassing.receive(upTo: StoreMessage.byteLimit, from: socket),
            !message.payload.isEmpty
        else { return false }
        let text = String(decoding: message.payload, as: UTF8.self)
        let order = StoreMessage(text)
        switch order {
        case .put(let name), .replace(let name):
            let isReplacing = order == .replace(name)
            // What is kept in part only is no good: its server is told, and does without.
            let isTaken =
                !message.isMissingDescriptors
                && hasRoom(for: message.descriptors.count, under: name, isReplacing: isReplacing)
            if isTaken, isReplacing { remove(name) }
            while isTaken, let number = message.descriptors.takeFirst() { put(name, [number]) }
            guard let sequence = StoreMessage.sequence(in: text) else { break }
            let answer = StoreAnswer(sequence: sequence, isTaken: isTaken).bytes
            try? DescriptorPassing.send(answer.span.bytes, descriptors: [], over: socket)
        case .remove(let name): remove(name)
        case nil: break
        }
        return true
    }
}

/// What a descriptor is, as `/proc` shows it.
enum DescriptorKind: Equatable {
    case userfaultfd, process, state, pages, record, socket, other

    init(of number: Int32) {
        self =
            switch Self.link(of: number) {
            case let name where name.contains("[userfaultfd]"): .userfaultfd
            case let name where name.contains("pidfd"): .process
            case let name where name.hasPrefix("socket:"): .socket
            case let name where name.hasPrefix("/memfd:pager-state"): .state
            case let name where name.hasPrefix("/memfd:pager-pages"): .pages
            case let name where name.hasPrefix("/memfd:pager-record"): .record
            default: .other
            }
    }

    static func link(of number: Int32) -> String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { room in
            let count = readlink("/proc/self/fd/\(number)", room.baseAddress!, room.count)
            return String(decoding: room.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }
}
