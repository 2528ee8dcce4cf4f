import Glibc
import SystemPackage

/// Notices when the kernel complains: a new taint bit, or a warning in its log.
struct KernelWatch {
    private let log: FileDescriptor?
    /// Why the log is not watched.
    private let logError: Errno?
    private var taint: UInt64

    /// Begins with the state of now; what the kernel said before does not count.
    init() {
        do {
            log = try FileDescriptor.open("/dev/kmsg", .readOnly, options: [.nonBlocking, .closeOnExec])
            logError = nil
        } catch {
            log = nil
            logError = error as? Errno
        }
        _ = try? log?.seek(offset: 0, from: .end)
        taint = Self.taintWord()
    }

    /// What a reader should know of this watch: that it sees little, or that it comes late.
    var notes: [String] {
        var notes: [String] = []
        if let logError { notes.append(Self.note(ofLogError: logError)) }
        if let note = Self.note(ofTaint: taint) { notes.append(note) }
        return notes
    }

    /// What the kernel has complained about since the last call; empty when all is well.
    mutating func complaints() -> [String] {
        var lines = log.map { Self.suspicious(in: Self.records(of: $0)) } ?? []
        let now = Self.taintWord()
        let new = now & ~taint
        taint = now
        if new != 0 {
            lines.append("the kernel is tainted now: \(Self.taintNames(new))")
        }
        return lines
    }

    /// Why /dev/kmsg cannot be opened, and what helps.
    static func note(ofLogError error: Errno) -> String {
        let remedy =
            switch error {
            case .notPermitted:
                "; grant CAP_SYSLOG or set kernel.dmesg_restrict to 0, and allow the device in a container"
            case .permissionDenied: "; run as root, or let this user read the file"
            case .noSuchFileOrDirectory: "; give a container the device, with --device /dev/kmsg"
            default: ""
            }
        return "the kernel log is not watched: /dev/kmsg cannot be opened: \(error)\(remedy)"
    }

    /// What a taint word from before the run means for it; nil for none.
    static func note(ofTaint word: UInt64) -> String? {
        guard word != 0 else { return nil }
        return "the kernel is tainted already: \(taintNames(word)); what it does may be the fault of that"
    }

    private static func taintWord() -> UInt64 {
        ProcFile.line("/proc/sys/kernel/tainted").flatMap { UInt64($0) } ?? 0
    }

    private static func taintNames(_ word: UInt64) -> String {
        let names = [
            0: "proprietary module", 1: "module forced in", 2: "unsafe for this processor", 3: "module forced out",
            4: "machine check", 5: "bad page", 6: "tainted by a program", 7: "died", 8: "ACPI table overridden",
            9: "warning", 10: "staging driver", 11: "firmware bug worked around", 12: "module from outside the tree",
            13: "unsigned module", 14: "soft lockup", 15: "live patch", 16: "tainted by a distribution",
            17: "randomized structures", 18: "in-kernel test",
        ]
        return (0..<64).filter { word >> $0 & 1 == 1 }.map { names[$0] ?? "bit \($0)" }.joined(separator: ", ")
    }

    /// The messages of the kernel itself that have come since the last call.
    private static func records(of log: FileDescriptor) -> [Substring] {
        var messages: [Substring] = []
        withUnsafeTemporaryAllocation(byteCount: 8192, alignment: 1) { buffer in
            while true {
                do {
                    let count = try log.read(into: buffer)
                    guard count > 0 else { return }
                    let record = String(decoding: buffer[..<count], as: UTF8.self)
                    messages += message(of: record).map { [$0] } ?? []
                } catch Errno.brokenPipe {
                    continue  // The log ran over; reading goes on with the oldest message that is left.
                } catch {
                    return
                }
            }
        }
        return messages
    }

    /// The text of a record `priority,sequence,time,flags;text`, if the kernel wrote it and not a program.
    static func message(of record: String) -> Substring? {
        guard let semicolon = record.firstIndex(of: ";"),
            let priority = Int(record.prefix(while: { $0 != "," })), priority >> 3 == 0
        else { return nil }
        return record[record.index(after: semicolon)...].prefix { $0 != "\n" }
    }

    /// How much is quoted from a complaint on: a warning's place and the top of its stack.
    private static let quotedLines = 14

    static func suspicious(in messages: [Substring]) -> [String] {
        guard let first = messages.firstIndex(where: isSuspicious) else { return [] }
        return messages[first...].prefix(quotedLines).map { "kernel: \($0)" }
    }

    /// What the kernel reports of programs, and not of itself: how their end counts is up to whoever started them.
    private static let aboutPrograms = "traps: "

    /// Processes that the kernel kills for touching poisoned memory are not among these: POISON is meant to do that.
    private static let complaints = [
        "WARNING:", "BUG:", "BUG at", "Oops", "Bad page", "bad page", "Bad rss-counter", "bad rss-counter",
        "general protection fault", "Unable to handle kernel", "KASAN", "KCSAN", "KFENCE", "UBSAN", "refcount_t:",
        "list_add corruption", "list_del corruption", "possible circular locking", "possible recursive locking",
        "inconsistent lock state", "suspicious RCU usage", "lock held when returning", "page dumped because",
        "blocked for more than", "soft lockup", "Kernel panic", "bad pmd", "bad pud", "bad p4d", "bad pgd",
        "Bad swap file entry", "Bad swap offset entry", "Bad swap entry", "rcu: INFO:", "self-detected stall",
        "new suspected memory leaks", "vmalloc-out-of-bounds", "stack-out-of-bounds",
    ]

    private static func isSuspicious(_ message: Substring) -> Bool {
        !message.hasPrefix(aboutPrograms) && complaints.contains { message.contains($0) }
    }
}
