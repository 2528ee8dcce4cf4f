import CPagerSupport
import Glibc
import Synchronization
import UserfaultFD

/// The descriptors that this process was started with, and their names: as systemd's manager passes them, and as the
/// processes of this program do.
enum PassedDescriptors {
    /// The number of the first.
    static var first: Int32 { 3 }

    static let namesVariable = "LISTEN_FDNAMES"
    static let countVariable = "LISTEN_FDS"
    static let processVariable = "LISTEN_PID"

    private static let taken = Mutex(Shelf())
    /// Sockets of systemd's at which machines listen.
    private static let lent = Mutex<Set<Int32>>([])
    private static let hadPredecessor = Atomic(false)
    private static let hadNamesInFile = Atomic(false)

    /// Takes note of them, before anything else opens a descriptor.
    ///
    /// - Parameter process: Whom they were meant for: this process, or the one that has started it.
    /// - Throws: ``Failure`` if it is not known what they are.
    static func prepare(for process: pid_t) throws {
        let names = try PassedNames.take()
        let shelf = read(process, names)
        hadNamesInFile.store(names != nil, ordering: .relaxed)
        hadPredecessor.store(shelf.isForSuccessor, ordering: .relaxed)
        taken.withLock { $0 = shelf }
    }

    /// All of them, which are the caller's.
    static func takeAll() -> Shelf {
        taken.withLock { taken in
            defer { taken = Shelf() }
            return taken
        }
    }

    static var names: [String] { taken.withLock { Array($0.kept.keys) } }

    /// How many descriptors there are under each name.
    static var counts: [String: Int] { taken.withLock { $0.kept.mapValues(\.count) } }

    /// How many descriptors there are under each name that this program gives.
    static var storedCounts: [String: Int] { counts.filter { KeptName.isOwn($0.key) } }

    /// Whether another server was there before, which has died: also after all that it has left was taken.
    static var isSuccessor: Bool { hadPredecessor.load(ordering: .relaxed) }

    /// Whether the names came in a file, which has room for any number.
    static var haveNamesInFile: Bool { hadNamesInFile.load(ordering: .relaxed) }

    /// The first descriptor of a kind under a name, which stays there.
    static func number(_ kind: DescriptorKind, under name: String) -> Int32? {
        taken.withLock { $0.kept[name]?.first { DescriptorKind(of: $0) == kind } }
    }

    /// The descriptors under a name; they are the caller's.
    static func take(_ name: String) -> [Int32] { taken.withLock { $0.take(name) } }

    /// The socket of a machine, which a server has left that has died, or systemd's at its path; the caller owns it.
    ///
    /// - Returns: It. Systemd's is a duplicate, and its path is not this program's to remove: what is lent is to be given back.
    static func takeSocket(of machine: String, at path: String) -> (number: Int32, lent: Int32?)? {
        taken.withLock { taken in
            let own = KeptName.machine(machine)
            if let number = sockets(under: own, of: taken).first(where: { $0.state(at: path) == .useful })?.number {
                let rest = taken.take(own).filter { $0 != number }
                taken.put(own, rest)
                return (number, nil)
            }
            for (number, bound) in idleSockets(of: taken) where SocketPath.isSame(bound, path) && !isShut(number) {
                guard let copy = try? OwnedDescriptorNumber.duplicate(number) else { continue }
                lent.withLock { _ = $0.insert(number) }
                return (copy, number)
            }
            return nil
        }
    }

    /// Lets another machine listen at a socket of systemd's.
    static func giveBack(_ number: Int32) { lent.withLock { _ = $0.remove(number) } }

    /// Paths of sockets that systemd has passed, and at which no machine listens.
    static var unusedSockets: [String] { taken.withLock { idleSockets(of: $0).map(\.path).sorted() } }

    private static func idleSockets(of shelf: Shelf) -> [(number: Int32, path: String)] {
        let used = lent.withLock(\.self)
        return shelf.kept.filter { KeptName.machine(in: $0.key) == nil && !KeptName.isArrival($0.key) }
            .flatMap(\.value).filter { !used.contains($0) }
            .compactMap { number in pathOfSocket(number).map { (number, $0) } }
    }

    /// Sockets of a machine that a server has left, and that are of no use; the caller owns them.
    ///
    /// It had shut them before it died, or they are at another path, or what is at the path is not them. Clients may wait there.
    ///
    /// - Returns: With the path that is to be removed.
    static func takeUselessSockets(
        of machine: String, at path: String
    ) -> [(number: Int32, path: String?, isReplaced: Bool)] {
        taken.withLock { taken in
            let name = KeptName.machine(machine)
            let useless = sockets(under: name, of: taken).compactMap {
                socket -> (number: Int32, path: String?, isReplaced: Bool)? in
                switch socket.state(at: path) {
                case .useful: nil
                // What is there now may be another program's.
                case .shut: (socket.number, nil, false)
                case .replaced: (socket.number, nil, true)
                case .elsewhere(let other): (socket.number, other, false)
                }
            }
            guard !useless.isEmpty else { return [] }
            let rest = taken.take(name).filter { number in !useless.contains { $0.number == number } }
            taken.put(name, rest)
            return useless
        }
    }

    private static func sockets(under name: String, of shelf: Shelf) -> [LeftSocket] {
        let numbers = shelf.kept[name] ?? []
        let identities = numbers.compactMap(SocketIdentity.init(inNameOfFile:))
        return numbers.compactMap { number in
            pathOfSocket(number).map {
                LeftSocket(number: number, bound: $0, isShut: isShut(number), identities: identities)
            }
        }
    }

    private static func isShut(_ number: Int32) -> Bool { cps_is_shut(number) == 1 }

    /// The path that a listening socket was bound to.
    static func pathOfSocket(_ number: Int32) -> String? {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 256) { room in
            cps_socket_path(number, room.baseAddress, room.count) < 0 ? nil : String(cString: room.baseAddress!)
        }
    }

    /// - Parameter own: The names if this program has passed the descriptors: systemd's are in a variable.
    private static func read(_ process: pid_t, _ own: [String]?) -> Shelf {
        func text(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
        defer { for name in [processVariable, countVariable, namesVariable] { unsetenv(name) } }
        var shelf = Shelf()
        guard text(processVariable).flatMap({ pid_t($0) }) == process,
            let count = text(countVariable).flatMap({ Int32($0) }), count > 0, count <= 1 << 20
        else { return shelf }
        let names =
            own ?? (text(namesVariable) ?? "").split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        for index in 0..<count where fcntl(first + index, F_SETFD, FD_CLOEXEC) == 0 {
            let name = Int(index) < names.count ? names[Int(index)] : ""
            shelf.put(name.isEmpty ? "unknown" : name, [first + index])
        }
        return shelf
    }
}

extension Shelf {
    /// Whether it has what a server has left.
    var isForSuccessor: Bool { kept.keys.contains { KeptName.machine(in: $0) != nil || KeptName.isClient($0) } }
}
