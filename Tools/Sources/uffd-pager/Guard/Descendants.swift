import CPagerSupport
import Glibc
import SystemPackage
import UserfaultFD

// Clients whose userfaultfds report forks: a child's userfaultfd is born in the server, and goes with it. A child that is left
// alone goes on, and reads zeros.

extension Shelf {
    /// Keeps it for the next server that a client was not served to its end.
    mutating func noteFailure() {
        guard kept[KeptName.failed] == nil, let file = try? Memfd.note(),
            let number = file.withUnsafeDescriptor({ try? OwnedDescriptorNumber.duplicate($0.rawValue) })
        else { return }
        put(KeptName.failed, [number])
    }

    /// Kills clients that follow forks, and what they have forked; their descriptors stay.
    ///
    /// - Returns: How many clients there were.
    func killForking() -> Int {
        kept.count { name, numbers in
            guard KeptName.isClient(name), numbers.contains(where: OpenNumber.reportsForks),
                let pidfd = numbers.first(where: { DescriptorKind(of: $0) == .process }),
                let process = OpenNumber.process(ofPidfd: pidfd)
            else { return false }
            for child in Descendants.stop(of: process) { kill(child, SIGKILL) }
            _ = cps_signal_process(pidfd, SIGKILL)
            return true
        }
    }
}

/// The processes that a process has forked, and that run its program.
private enum Descendants {
    /// Stops a process and its descendants, so that nobody forks any more.
    ///
    /// One whose parent has ended is not found. One that runs another program has memory of its own, and goes on.
    static func stop(of process: pid_t) -> [pid_t] {
        let program = program(of: process)
        var family: Set<pid_t> = [process]
        var fresh = family
        while !fresh.isEmpty {
            for member in fresh { kill(member, SIGSTOP) }
            fresh = []
            // The parents' numbers are looked up once, so that a generation may take a round of its own.
            for (child, parent) in parents() where family.contains(parent) && !family.contains(child) {
                fresh.insert(child)
            }
            family.formUnion(fresh)
        }
        family.remove(process)
        let others = family.filter { self.program(of: $0) != program }
        for other in others { kill(other, SIGCONT) }
        return Array(family.subtracting(others))
    }

    private static func program(of process: pid_t) -> [UInt64] {
        var status = stat()
        return stat("/proc/\(process)/exe", &status) == 0 ? [UInt64(status.st_dev), UInt64(status.st_ino)] : []
    }

    private static func parents() -> [pid_t: pid_t] {
        guard let folder = opendir("/proc") else { return [:] }
        defer { closedir(folder) }
        var parents: [pid_t: pid_t] = [:]
        while let entry = readdir(folder) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { room in
                room.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard let process = pid_t(name), let text = OpenNumber.text(of: "/proc/\(name)/stat"),
                // A program may have given itself any name.
                let words = text.split(separator: ")").last?.split(separator: " "), words.count > 1,
                let parent = pid_t(words[1])
            else { continue }
            parents[process] = parent
        }
        return parents
    }
}

/// What the kernel tells of a descriptor.
enum OpenNumber {
    /// The process of a pidfd; `nil` if it has ended, or is in no namespace that is seen from here.
    static func process(ofPidfd number: Int32) -> pid_t? {
        guard let text = text(of: "/proc/self/fdinfo/\(number)"),
            let line = text.split(separator: "\n").first(where: { $0.hasPrefix("Pid:") }),
            let process = pid_t(line.dropFirst("Pid:".count).filter { !$0.isWhitespace }), process > 0
        else { return nil }
        return process
    }

    /// Whether it is a userfaultfd that reports forks.
    static func reportsForks(_ number: Int32) -> Bool {
        guard DescriptorKind(of: number) == .userfaultfd, let text = text(of: "/proc/self/fdinfo/\(number)") else {
            return false
        }
        return UserfaultFD.Status(fdinfo: text)?.features.contains(.eventFork) ?? false
    }

    fileprivate static func text(of path: String) -> String? {
        guard let file = try? FileDescriptor.open(path, .readOnly, options: .closeOnExec) else { return nil }
        defer { try? file.close() }
        return try? String(unsafeUninitializedCapacity: 4096) { room in
            try file.read(into: UnsafeMutableRawBufferPointer(room))
        }
    }
}
