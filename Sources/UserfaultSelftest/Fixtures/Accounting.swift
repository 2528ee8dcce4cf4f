import CSelftestSupport
package import UserfaultFD

/// The kernel's accounts that a case may move, read together.
package struct Accounting: Equatable, Sendable {
    /// RssAnon, RssFile and RssShmem of this process, in KiB.
    ///
    /// Approximate on many kernels: compare many pages.
    package var residentAnonymous: Int
    package var residentFile: Int
    package var residentShmem: Int
    /// Anonymous memory that is swapped out, in KiB.
    package var swapped: Int

    package init() {
        let status = ProcFile.text("/proc/self/status") ?? ""
        residentAnonymous = Self.kibibytes("RssAnon:", status)
        residentFile = Self.kibibytes("RssFile:", status)
        residentShmem = Self.kibibytes("RssShmem:", status)
        swapped = Self.kibibytes("VmSwap:", status)
    }

    static func kibibytes(_ key: String, _ text: String) -> Int {
        text.split(separator: "\n").first { $0.hasPrefix(key) }
            .flatMap { $0.split { $0 == " " || $0 == "\t" }.dropFirst().first }.flatMap { Int($0) } ?? 0
    }
}

/// What `/proc/self/smaps` says of the mapping that holds an address; exact, because the page tables are walked.
package struct MappingAccount: Sendable {
    /// Sizes in KiB, by the kernel's names: `Rss`, `Pss`, `Shared_Dirty`, `Private_Dirty`, `Anonymous`, `Swap`, ...
    package let kibibytes: [String: Int]
    /// The two-letter flags: `um` missing, `uw` write-protect, `ui` minor, `ur` read-write-protect.
    package let flags: Set<String>
    /// The mapping's own range.
    package let range: AddressRange

    package init(holding address: UInt) throws {
        var found: AddressRange?
        var sizes: [String: Int] = [:]
        var flags: Set<String> = []
        for line in try Self.text(about: address).split(separator: "\n") {
            if found == nil {
                found = Self.range(line)
            } else {
                let words = line.split { $0 == " " || $0 == "\t" }
                guard let key = words.first?.dropLast() else { continue }
                if key == "VmFlags" {
                    flags = Set(words.dropFirst().map(String.init))
                } else if words.count > 1, let size = Int(words[1]) {
                    sizes[String(key)] = size
                }
            }
        }
        guard let found else {
            throw CaseFailure(expected: "a mapping at 0x\(String(address, radix: 16))", seen: "none in smaps")
        }
        range = found
        kibibytes = sizes
        self.flags = flags
    }

    package subscript(key: String) -> Int { kibibytes[key] ?? 0 }

    private static func text(about address: UInt) throws -> String {
        var answer = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: 16 << 10) { buffer, count in
            answer = buffer.withMemoryRebound(to: CChar.self) { css_smaps_of(address, $0.baseAddress, $0.count) }
            count = max(0, answer)
        }
        try expect(answer >= 0, "/proc/self/smaps can be read", seen: "errno \(-answer)")
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The range at the start of a mapping's first line, `nil` for its other lines.
    private static func range(_ line: Substring) -> AddressRange? {
        guard let first = line.split(separator: " ").first else { return nil }
        let ends = first.split(separator: "-")
        guard ends.count == 2, let start = UInt(ends[0], radix: 16), let end = UInt(ends[1], radix: 16) else {
            return nil
        }
        return AddressRange(start: start, end: end)
    }
}

/// Counters of `/proc/vmstat`, in the units of each: pages for `nr_shmem`, `nr_mapped`, `nr_file_pages`.
package func vmstat(_ name: String) -> Int { ProcFile.count(name, in: "/proc/vmstat") ?? 0 }

/// The kernel's taint word.
package func taint() -> UInt64 {
    ProcFile.line("/proc/sys/kernel/tainted").flatMap { UInt64($0) } ?? 0
}

/// The mappings that cover a range, as lines of `/proc/self/maps`.
package func mappings(in range: AddressRange) -> [AddressRange] {
    (ProcFile.text("/proc/self/maps") ?? "").split(separator: "\n").compactMap { line in
        guard let first = line.split(separator: " ").first else { return nil }
        let ends = first.split(separator: "-")
        guard ends.count == 2, let start = UInt(ends[0], radix: 16), let end = UInt(ends[1], radix: 16) else {
            return nil
        }
        let mapping = AddressRange(start: start, end: end)
        return mapping.overlaps(range) ? mapping : nil
    }
}
