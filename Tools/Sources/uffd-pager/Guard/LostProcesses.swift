import CPagerSupport
import Glibc
import SystemPackage
import UserfaultFD
import UserfaultHandoff

/// Processes whose memory nobody can serve any more.
enum LostProcesses {
    /// How long a process may take to end that is killed.
    static let patience = Duration.seconds(60)

    /// Kills them, and waits until they have ended.
    ///
    /// Whoever has their userfaultfds keeps them until then: nobody is to read zeros. One that the kernel holds up does not
    /// hold up the others' end.
    ///
    /// Says how many cannot be killed.
    ///
    /// - Parameter pidfds: They stay the caller's.
    static func end(_ pidfds: [Int32]) {
        let killed = pidfds.filter { MayKill.killing($0) != .lives }
        if killed.count < pidfds.count {
            Standard.complain("error: clients are to be killed, \(Fate.lives) clients=\(pidfds.count - killed.count)")
        }
        let end = ContinuousClock.now + patience
        for number in killed {
            guard let process = try? ProcessHandle(adopting: OwnedDescriptorNumber.duplicate(number)) else { continue }
            _ = try? process.waitForExit(timeout: max(.zero, end - .now))
        }
    }
}

extension LostProcesses {
    /// Kills a peer that was handing its memory over when its server died, if something of its message may have been read, or
    /// it has sent its descriptor: it would wait for ever.
    ///
    /// - Parameter numbers: What was kept under ``KeptName/arrival(_:)``; they are closed.
    /// - Returns: What has become of it if it was to be killed.
    static func end(arrival numbers: [Int32]) -> Fate? {
        var isRead = false
        var fate: Fate?
        let kinds = numbers.map { (number: $0, kind: DescriptorKind(of: $0)) }
        for entry in kinds where entry.kind == .process {
            isRead = true
            if let ending = MayKill.killing(entry.number) { fate = ending }
        }
        for entry in kinds {
            guard entry.kind == .socket, !isRead else {
                close(entry.number)
                continue
            }
            guard let connection = try? HandoffConnection(adopting: entry.number) else { continue }
            do throws(HandoffError) {
                switch try HandoffServer.sendAway(connection) {
                case true?: fate = .killed
                case nil: fate = .lives
                case false?: break
                }
            } catch {
                // It has ended.
            }
        }
        return fate
    }
}

extension Shelf {
    /// Kills all clients, and peers that were handing their memory over.
    mutating func endClients() {
        endArrivals()
        _ = killForking()
        LostProcesses.end(clients.flatMap { kept[$0]! }.filter { DescriptorKind(of: $0) == .process })
    }

    /// Kills peers that were handing their memory over, and forgets them.
    ///
    /// - Returns: How many were killed.
    @discardableResult
    mutating func endArrivals() -> Int {
        let fates = kept.keys.filter(KeptName.isArrival).compactMap { LostProcesses.end(arrival: take($0)) }
        for case .lives in fates {
            Standard.complain("error: a client whose memory was just being handed over is to be killed, \(Fate.lives)")
        }
        return fates.count { $0 == .killed }
    }
}

enum OwnedDescriptorNumber {
    /// A duplicate, close-on-exec.
    static func duplicate(_ number: Int32) throws(Errno) -> Int32 {
        let copy = fcntl(number, F_DUPFD_CLOEXEC, 0)
        guard copy >= 0 else { throw Errno(rawValue: errno) }
        return copy
    }
}
