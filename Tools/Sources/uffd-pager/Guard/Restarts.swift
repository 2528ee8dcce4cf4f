import ArgumentParser
import CPagerSupport
import Glibc
import SystemPackage
import UserfaultFD

/// When a server was started, so that one that dies again and again is not started for ever.
struct Restarts {
    /// How many further starts there may be in one minute.
    let limit: Int
    /// In nanoseconds since the boot.
    private var starts: [UInt64] = []

    private static var minute: UInt64 { 60_000_000_000 }

    init(limit: Int) { self.limit = limit }

    /// Notes a start.
    ///
    /// - Returns: Whether there may be one: `false` if there were too many.
    mutating func note() -> Bool {
        let now = Self.now
        starts = starts.filter { $0 <= now && now - $0 < Self.minute } + [now]
        // The first is no restart.
        return starts.count <= limit + 1
    }

    /// Takes back what was noted last: it was asked for.
    mutating func forgetLast() { _ = starts.popLast() }

    /// How long to wait before the next: as long as it dies at once, more and more.
    var pause: Duration { starts.count <= 1 ? .zero : min(.seconds(1), .milliseconds(5 << min(starts.count, 10))) }

    private static var now: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    // MARK: In a memory file, for a service that is started anew by systemd

    /// Notes a start in a memory file, which may be empty.
    ///
    /// - Returns: As ``note()``.
    mutating func note(in file: borrowing Memfd) -> Bool {
        starts = Self.read(file)
        defer { write(to: file) }
        return note()
    }

    /// Takes back what was noted last in a memory file.
    mutating func forgetLast(in file: borrowing Memfd) {
        starts = Self.read(file)
        forgetLast()
        write(to: file)
    }

    /// In bytes: the number of starts, and the starts.
    static var fileBytes: Int { 8 * (1 + 1002) }

    private static func read(_ file: borrowing Memfd) -> [UInt64] {
        var words = [UInt64](repeating: 0, count: fileBytes / 8)
        let count = file.withUnsafeDescriptor { pread($0.rawValue, &words, fileBytes, 0) }
        guard count == fileBytes, words[0] < UInt64(words.count) else { return [] }
        return Array(words[1..<1 + Int(words[0])])
    }

    private func write(to file: borrowing Memfd) {
        let kept = starts.suffix(Self.fileBytes / 8 - 1)
        let words = [UInt64(kept.count)] + kept
        _ = file.withUnsafeDescriptor { pwrite($0.rawValue, words, words.count * 8, 0) }
    }
}

/// What systemd keeps for the next guard: when the service has started.
final class RestartsFile {
    let file: Memfd

    /// - Throws: ``Failure`` without systemd.
    init(_ shelf: inout Shelf) throws {
        guard getenv("NOTIFY_SOCKET") != nil else {
            throw Failure(.unavailable, "--fd-store needs systemd, with Type=notify")
        }
        if let number = shelf.kept[KeptName.restarts]?.first {
            file = try Memfd(adopting: OwnedDescriptorNumber.duplicate(number))
            return
        }
        file = try Memfd(name: "pager-restarts", count: Restarts.fileBytes)
        let number = file.withUnsafeDescriptor { $0.rawValue }
        let answer = cps_notify(StoreMessage.put(KeptName.restarts).text, [number], 1, KeepError.seconds)
        guard answer >= 0 else { throw Failure(.system, "systemd cannot be told: \(Errno(rawValue: -answer))") }
    }
}
