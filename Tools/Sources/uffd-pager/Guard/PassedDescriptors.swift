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
    private static let hadPredecessor = Atomic(false)

    /// Takes note of them, before anything else opens a descriptor.
    ///
    /// - Parameter process: Whom they were meant for: this process, or the one that has started it.
    /// - Throws: ``Failure`` if it is not known what they are.
    static func prepare(for process: pid_t) throws {
        let shelf = read(process, try PassedNames.take())
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

    /// The first descriptor of a kind under a name, which stays there.
    static func number(_ kind: DescriptorKind, under name: String) -> Int32? {
        taken.withLock { $0.kept[name]?.first { DescriptorKind(of: $0) == kind } }
    }

    /// The descriptors under a name; they are the caller's.
    static func take(_ name: String) -> [Int32] { taken.withLock { $0.take(name) } }

    /// The socket of a machine, which a server has left that has died, or systemd's at its path; the caller owns it.
    ///
    /// - Returns: It, and whether systemd has made it: its path is not this program's to remove.
    static func takeSocket(of machine: String, at path: String) -> (number: Int32, isSystemds: Bool)? {
        taken.withLock { taken in
            let own = KeptName.machine(machine)
            for (name, numbers) in taken.kept where name == own || KeptName.machine(in: name) == nil {
                // Under its own name there is its description besides.
                let found = numbers.first { number in
                    guard let bound = pathOfSocket(number), !isShut(number) else { return false }
                    return name == own ? isPlace(of: bound, path) : bound == path
                }
                guard let number = found else { continue }
                _ = taken.take(name)
                taken.put(name, numbers.filter { $0 != number })
                return (number, name != own)
            }
            return nil
        }
    }

    /// Sockets of a machine that a server has left, and that are of no use; the caller owns them.
    ///
    /// It had shut them before it died, or they are at another path. Clients may wait there.
    ///
    /// - Returns: With the path that is to be removed.
    static func takeUselessSockets(of machine: String, at path: String) -> [(number: Int32, path: String?)] {
        taken.withLock { taken in
            let name = KeptName.machine(machine)
            guard let numbers = taken.kept[name] else { return [] }
            let useless = numbers.compactMap { number -> (number: Int32, path: String?)? in
                guard let bound = pathOfSocket(number) else { return nil }
                // What is there now may be another program's.
                if isShut(number) { return (number, nil) }
                return isPlace(of: bound, path) ? nil : (number, SocketPath.place(ofBound: bound))
            }
            _ = taken.take(name)
            taken.put(name, numbers.filter { number in !useless.contains { $0.number == number } })
            return useless
        }
    }

    /// Whether a socket of ours is at a path, as far as that is known.
    private static func isPlace(of bound: String, _ path: String) -> Bool {
        SocketPath.place(ofBound: bound).map { $0 == path } ?? true
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
