import SystemPackage
import UserfaultFD

/// A page's entry in `/proc/PID/pagemap`: what the page tables say.
package struct PagemapEntry: Equatable, Sendable, CustomStringConvertible {
    package let rawValue: UInt64

    /// The page frame number; 0 where the reader may not know it.
    package var frame: UInt64 { rawValue & (1 << 55 - 1) }
    package var isSoftDirty: Bool { rawValue >> 55 & 1 == 1 }
    package var isExclusive: Bool { rawValue >> 56 & 1 == 1 }
    /// The userfaultfd bit: write-protected or read-write-protected, for markers and swap entries too.
    package var isProtected: Bool { rawValue >> 57 & 1 == 1 }
    package var isGuard: Bool { rawValue >> 58 & 1 == 1 }
    /// The page is a file's, or shared anonymous memory.
    package var isFile: Bool { rawValue >> 61 & 1 == 1 }
    package var isSwapped: Bool { rawValue >> 62 & 1 == 1 }
    package var isPresent: Bool { rawValue >> 63 & 1 == 1 }

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    /// The entry of the page that holds an address.
    package init(of address: UInt, process: String = "self") throws {
        let file = try FileDescriptor.open("/proc/\(process)/pagemap", .readOnly, options: .closeOnExec)
        var word: UInt64 = 0
        let page = Int64(address / UInt(PageSize.base.bytes))
        let read = try file.closeAfter {
            try withUnsafeMutableBytes(of: &word) { try file.read(fromAbsoluteOffset: page * 8, into: $0) }
        }
        try expectEqual(read, 8, "bytes of /proc/\(process)/pagemap")
        rawValue = word
    }

    package var description: String {
        let flags = [
            (isPresent, "present"), (isSwapped, "swapped"), (isFile, "file"), (isExclusive, "exclusive"),
            (isProtected, "uffd-protected"), (isSoftDirty, "soft-dirty"), (isGuard, "guard"),
        ]
        return "[" + flags.filter(\.0).map(\.1).joined(separator: " ") + "] frame \(frame)"
    }
}

/// What root sees of a page frame in `/proc/kpageflags` and `/proc/kpagecount`.
///
/// The case requires `.pageFrames`.
package struct PageFrame: Equatable, Sendable {
    package let number: UInt64
    /// How often the frame is mapped.
    package let mapCount: UInt64
    package let flags: Flags

    package struct Flags: OptionSet, Hashable, Sendable {
        package let rawValue: UInt64
        package init(rawValue: UInt64) { self.rawValue = rawValue }

        package static let upToDate = Flags(rawValue: 1 << 3)
        package static let dirty = Flags(rawValue: 1 << 4)
        package static let lru = Flags(rawValue: 1 << 5)
        package static let mapped = Flags(rawValue: 1 << 11)
        package static let anonymous = Flags(rawValue: 1 << 12)
        package static let swapCache = Flags(rawValue: 1 << 13)
        package static let swapBacked = Flags(rawValue: 1 << 14)
        package static let compoundHead = Flags(rawValue: 1 << 15)
        package static let compoundTail = Flags(rawValue: 1 << 16)
        package static let huge = Flags(rawValue: 1 << 17)
        package static let hardwarePoison = Flags(rawValue: 1 << 19)
        package static let merged = Flags(rawValue: 1 << 21)
        package static let transparentHuge = Flags(rawValue: 1 << 22)
        package static let zeroPage = Flags(rawValue: 1 << 24)
    }

    /// Whether the kernel shows frames to this process: it hides their numbers without an error.
    static var areVisible: Bool {
        guard let memory = try? Mapping(anonymous: PageSize.base.bytes) else { return false }
        Touch.store(memory.range.start, 1)
        guard let frame = try? PageFrame(of: memory.range.start) else { return false }
        return frame.number != 0 && frame.mapCount == 1
    }

    /// The frame of the page that holds an address, which must be present.
    package init(of address: UInt) throws {
        let entry = try PagemapEntry(of: address)
        try expect(entry.isPresent, "the page is present", seen: "\(entry)")
        number = entry.frame
        mapCount = try Self.word("/proc/kpagecount", entry.frame)
        flags = try Self.flags(of: entry.frame)
    }

    /// The flags of a frame, whoever has it.
    package static func flags(of frame: UInt64) throws -> Flags {
        Flags(rawValue: try word("/proc/kpageflags", frame))
    }

    private static func word(_ path: String, _ frame: UInt64) throws -> UInt64 {
        let file = try FileDescriptor.open(path, .readOnly, options: .closeOnExec)
        var word: UInt64 = 0
        _ = try file.closeAfter {
            try withUnsafeMutableBytes(of: &word) { try file.read(fromAbsoluteOffset: Int64(frame) * 8, into: $0) }
        }
        return word
    }
}

extension CaseContext {
    /// Has no page of this process be soft-dirty; skips the case where that cannot be.
    func clearSoftDirty() throws {
        let file = "/proc/self/clear_refs"
        guard let error = ProcFile.write("4", to: file) else { return }
        guard error != .readOnlyFileSystem else {
            try skip("\(file) cannot be written (\(error)): mount /proc writable")
        }
        try skip(kernel: "this kernel has no soft-dirty bits: \(error)")
    }
}
