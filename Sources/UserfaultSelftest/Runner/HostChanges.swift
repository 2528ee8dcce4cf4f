import CSelftestSupport
import Glibc
import SystemPackage

/// The changes that the guardian has made to the host, each kept with what undoes it.
struct HostChanges {
    private var journal: Journal {
        didSet { keep(journal) }
    }
    private let keep: (Journal) -> Void
    private var undoings: [Undoing] {
        get { journal.undoings }
        set { journal.undoings = newValue }
    }
    private var memoryGroup: String?
    /// The swap space that was added.
    private var swap: String?
    /// Why there can be no swap space; tried once, because each try makes a device.
    private var noSwap: String?

    /// - Parameters:
    ///   - journal: What somebody else has left to undo.
    ///   - keep: Takes what there is to undo, before each change.
    init(_ journal: Journal = Journal(), keep: @escaping (Journal) -> Void) {
        self.journal = journal
        self.keep = keep
    }

    mutating func make(_ request: GuardianRequest) -> GuardianReply {
        switch request {
        case .lock: .refused("the lock is none of the changes")
        case .set(let path, let value): set(path, to: value)
        case .restore(let path): restore(path)
        case .hugePages(let free): growPool(free: free)
        case .swap: provideSwap()
        case .makeMemoryGroup: makeMemoryGroup()
        case .removeMemoryGroup: removeMemoryGroup()
        case .keepBrokenPages: keepBrokenPages()
        case .healBrokenPages: healBrokenPages()
        }
    }

    /// Undoes everything, the latest first; returns what could not be undone, which is left to a later run.
    mutating func undoAll() -> [String] {
        var failures: [String] = []
        for index in undoings.indices.reversed() {
            if let failure = undo(at: index) { failures.append(failure) }
        }
        return failures
    }

    /// Undoes one change, and leaves it if that fails; returns why, and what a person can do.
    private mutating func undo(at index: Int) -> String? {
        let undoing = undoings[index]
        // Until the write has ended nobody knows what it has made of the setting.
        if case .write(_, let path) = undoing { journal.values[path] = nil }
        if let failure = Self.undo(undoing) { return "\(failure) (\(undoing.remedy))" }
        undoings.remove(at: index)
        return nil
    }

    /// Undoes what a run of the past has left, but for settings that somebody has changed since; tells of each.
    ///
    /// What cannot be undone stays, and is tried again at the end of the run.
    mutating func undoRemains(_ remains: Journal) -> [String] {
        journal = remains
        var notes: [String] = []
        for index in undoings.indices.reversed() {
            let undoing = undoings[index]
            if case .write(let value, let path) = undoing, let left = journal.values[path],
                let current = SystemSetting(path: path).current, current != left, current != value
            {
                notes.append("\(path) was \(value) before, and was changed since: it stays \(current)")
                undoings.remove(at: index)
            } else {
                notes.append(undo(at: index) ?? "put back: \(undoing)")
            }
        }
        return notes
    }

    // MARK: Settings

    private mutating func set(_ path: String, to value: String) -> GuardianReply {
        guard let before = SystemSetting(path: path).current else { return .refused("\(path) cannot be read") }
        let wasChanged = isChanged(path)
        if !wasChanged { undoings.append(.write(before, to: path)) }
        // Until the write has ended nobody knows what it has made of the setting.
        journal.values[path] = nil
        if let error = ProcFile.write(value, to: path) {
            if !wasChanged { undoings.removeLast() }
            return .refused("\(path) cannot be set to \(value): \(error)")
        }
        // Nor how many huge pages a case still breaks.
        let mayShrink = path == HugePagePool.path && undoings.contains { if case .heal = $0 { true } else { false } }
        if !mayShrink { journal.values[path] = SystemSetting(path: path).current }
        return .done(before)
    }

    private func isChanged(_ path: String) -> Bool {
        undoings.contains { if case .write(_, path) = $0 { true } else { false } }
    }

    private mutating func restore(_ path: String) -> GuardianReply {
        for index in undoings.indices.reversed() {
            if case .write(_, path) = undoings[index] {
                if let failure = undo(at: index) { return .refused(failure) }
            }
        }
        return .done("")
    }

    private mutating func growPool(free: Int) -> GuardianReply {
        let path = HugePagePool.path
        let total = { ProcFile.line(path).flatMap { Int($0) } }
        guard total() != nil else { return .refused("this kernel has no huge pages") }
        let refusal = HugePagePool.grow(free: free, counts: { total().map { (total: $0, free: HugePagePool.free) } }) {
            size in
            if case .refused(let reason) = set(path, to: "\(size)") { return reason }
            return nil
        } compact: {
            _ = ProcFile.write("1", to: "/proc/sys/vm/compact_memory")
        }
        return refusal.map(GuardianReply.refused) ?? .done("")
    }

    // MARK: Swap

    static let zramSize = 128 << 20
    private static let fileSize = 64 << 20

    private mutating func provideSwap() -> GuardianReply {
        guard let swap else { return addSwap() }
        // A case may have turned it off.
        if !SwapSpace.paths.contains(swap[...]) {
            let answer = css_swapon(swap)
            guard answer == 0 else { return .refused("\(swap) cannot be used again: \(Errno(rawValue: -answer))") }
        }
        return .done(swap)
    }

    private mutating func addSwap() -> GuardianReply {
        if let noSwap { return .refused(noSwap) }
        if let lent = SwapSpace.lent {
            undoings.append(.swapOn(lent))
            swap = lent
            return .done(lent)
        }
        do {
            try addOrUndo { try $0.addZram() }
        } catch {
            // No zram, or none left: a file does as well where the file system can swap.
            do {
                try addOrUndo { try $0.addSwapFile() }
            } catch let fileError {
                let refusal = "no swap space could be added: zram: \(error), file: \(fileError)"
                noSwap = refusal
                return .refused(refusal)
            }
        }
        return .done(swap!)
    }

    /// Makes changes that belong together: where one fails, those before it are undone.
    private mutating func addOrUndo(_ add: (inout HostChanges) throws -> Void) throws {
        let before = undoings.count
        do {
            try add(&self)
        } catch {
            // What cannot be undone now is tried again at the end of the run, which then tells of it.
            let kept = undoings[before...].reversed().filter { Self.undo($0) != nil }
            undoings = undoings[..<before] + kept.reversed()
            throw error
        }
    }

    private mutating func addZram() throws {
        // A read makes a device, but only a write removes it.
        let remover = "/sys/class/zram-control/hot_remove"
        guard access(remover, W_OK) == 0 || errno == ENOENT else {
            throw Guardian.Refusal(
                reason: "\(remover) cannot be written (\(Errno(rawValue: errno))): mount /sys writable")
        }
        guard let number = ProcFile.line("/sys/class/zram-control/hot_add") else { throw Errno.noSuchFileOrDirectory }
        undoings.append(.removeZram(number))
        if let error = ProcFile.write("\(Self.zramSize)", to: "/sys/block/zram\(number)/disksize") { throw error }
        let device = try FileDescriptor.open("/dev/zram\(number)", .readWrite, options: [.closeOnExec])
        try device.closeAfter { try SwapHeader.write(to: device, size: Self.zramSize) }
        try swapOn("/dev/zram\(number)")
    }

    private mutating func addSwapFile() throws {
        let path = "/var/tmp/uffd-selftest-\(getpid()).swap"
        let file = try FileDescriptor.open(
            FilePath(path), .readWrite, options: [.create, .exclusiveCreate, .closeOnExec],
            permissions: .ownerReadWrite)
        undoings.append(.unlink(path))
        try file.closeAfter {
            // Swap needs every block to be there.
            let zeros = [UInt8](repeating: 0, count: 1 << 20)
            for offset in stride(from: 0, to: Self.fileSize, by: zeros.count) {
                try file.writeAll(toAbsoluteOffset: Int64(offset), zeros)
            }
            try SwapHeader.write(to: file, size: Self.fileSize)
            if fsync(file.rawValue) != 0 { throw Errno.ioError }
        }
        try swapOn(path)
    }

    private mutating func swapOn(_ path: String) throws {
        undoings.append(.swapOff(path))
        try checked(css_swapon(path))
        swap = path
    }

    // MARK: Memory control groups

    private mutating func makeMemoryGroup() -> GuardianReply {
        guard let parent = MemoryGroups.parent() else {
            return .refused("no memory control group is mounted with its controller")
        }
        let path = "\(parent)/uffd-selftest-\(getpid())"
        undoings.append(.removeGroup(path))
        guard mkdir(path, 0o700) == 0 else { return .refused("\(path) cannot be made") }
        memoryGroup = path
        return .done(path)
    }

    private mutating func removeMemoryGroup() -> GuardianReply {
        if let memoryGroup {
            let removal = Undoing.removeGroup(memoryGroup)
            if let failure = Self.undo(removal) { return .refused(failure) }
            undoings.removeAll { $0 == removal }
        }
        memoryGroup = nil
        return .done("")
    }

    // MARK: Broken pages

    private mutating func keepBrokenPages() -> GuardianReply {
        // A huge page that breaks leaves the pool, even if it is healed.
        if let total = ProcFile.line(HugePagePool.path), !isChanged(HugePagePool.path) {
            undoings.append(.write(total, to: HugePagePool.path))
        }
        journal.values[HugePagePool.path] = nil
        guard access(BrokenPages.healer, W_OK) == 0 else {
            return .refused("no \(BrokenPages.healer): load the module hwpoison-inject, and mount debugfs")
        }
        let list = BrokenPages.list(ofProcess: getpid())
        let healing = Undoing.heal(list)
        if !undoings.contains(healing) { undoings.append(healing) }
        return BrokenPages.make(list).map { .refused("\(list) cannot be made: \($0)") } ?? .done(list)
    }

    /// What cannot be healed is tried again at the end of the run.
    private mutating func healBrokenPages() -> GuardianReply {
        let healing = Undoing.heal(BrokenPages.list(ofProcess: getpid()))
        if let failure = Self.undo(healing) { return .refused(failure) }
        undoings.removeAll { $0 == healing }
        return .done("")
    }
}
