import CPagerSupport
import Glibc
import Synchronization
import SystemPackage

/// Systemd's store of descriptors, which does not say what it has no room for.
final class ManagerStore: Sendable {
    private struct State {
        var names: NamesRoom
        var room: Int
    }

    private let state: Mutex<State>
    private let limit: Int

    init() {
        // Systemd tells how much it takes from version 254 on.
        limit = getenv("FDSTORE").flatMap { Int(String(cString: $0)) } ?? .max
        // What an earlier server has left is there, and what the guard knows of the restarts.
        let count = PassedDescriptors.storedCounts.values.reduce(1, +)
        state = Mutex(State(names: NamesRoom(), room: limit - count))
    }

    /// Waits until it was taken: the manager drops messages of a process that has died meanwhile.
    func put(_ name: String, _ numbers: [Int32]) throws(KeepError) {
        // If there is room for some only, a successor needs the process, to kill it.
        let first = numbers.firstIndex { DescriptorKind(of: $0) == .process }
        if let first { try send(name, [numbers[first]]) }
        try send(name, numbers.indices.filter { $0 != first }.map { numbers[$0] })
        try waitUntilTaken()
    }

    /// Puts descriptors in place of those under the name, which have their room; waits until it was taken.
    ///
    /// - Parameter least: What of them is kept all the same if there is no room for all.
    func replace(_ name: String, with numbers: [Int32], atLeast least: [Int32]) throws(KeepError) {
        let isThere = state.withLock { $0.names.has(name) }
        remove(name)
        do throws(KeepError) {
            try send(name, numbers, isReplacing: isThere)
        } catch {
            if !least.isEmpty { tell(name, least, isReplacing: isThere) }
            throw error
        }
        try waitUntilTaken()
    }

    /// Does not wait until it was taken.
    func tell(_ name: String, _ numbers: [Int32], isReplacing: Bool = false) {
        guard (try? takeRoom(numbers.count, under: name, isReplacing: isReplacing)) != nil else { return }
        _ = cps_notify(StoreMessage.put(name).text, numbers, numbers.count, KeepError.seconds)
    }

    private func send(_ name: String, _ numbers: [Int32], isReplacing: Bool = false) throws(KeepError) {
        try takeRoom(numbers.count, under: name, isReplacing: isReplacing)
        try notify(StoreMessage.put(name).text, numbers)
    }

    private func takeRoom(_ count: Int, under name: String, isReplacing: Bool) throws(KeepError) {
        // As in every ``Shelf``.
        let rest = KeptName.leavesHalf(name) && !isReplacing ? limit / 2 : 0
        try state.withLock { (state) throws(KeepError) in
            guard state.room - count >= rest else { throw .full }
            try state.names.take(count, under: name, isReplacing: isReplacing)
            state.room -= count
        }
    }

    func remove(_ name: String) {
        try? notify(StoreMessage.remove(name).text)
        state.withLock { $0.room += $0.names.remove(name) }
    }

    /// Waits until all that was sent is taken.
    func waitUntilTaken() throws(KeepError) {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw .refused
        }
        defer { close(ends[0]) }
        let sent = Result { () throws(KeepError) in try notify("BARRIER=1", [ends[1]]) }
        // The manager closes the other one, and only then nobody has it.
        close(ends[1])
        try sent.get()
        var end = pollfd(fd: ends[0], events: 0, revents: 0)
        var answer: Int32
        repeat {
            answer = poll(&end, 1, Int32(KeepError.patience.components.seconds) * 1000)
        } while answer < 0 && errno == EINTR
        guard answer > 0 else { throw .silent }
    }

    private func notify(_ text: String, _ numbers: [Int32] = []) throws(KeepError) {
        let error = KeepError.retrying {
            let answer = cps_notify(text, numbers, numbers.count, KeepError.seconds)
            return answer > 0 ? nil : Errno(rawValue: answer == 0 ? ENOTCONN : -answer)
        }
        guard let error else { return }
        throw error == .tooManyReferences ? .congested : .silent
    }
}
