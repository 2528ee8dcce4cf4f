import Glibc

/// What the process takes, as the kernel counts it.
struct Footprint {
    let descriptors: Int
    let threads: Int
    let mappings: Int
    let kibibytes: Int
    /// In bytes.
    let addressSpace: Int

    init() {
        descriptors = Self.entries("/proc/self/fd")
        threads = Self.entries("/proc/self/task")
        mappings = Self.text("/proc/self/maps").split(separator: "\n").count
        let resident = Self.text("/proc/self/status").split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
        kibibytes = resident.flatMap { Int($0.filter(\.isNumber)) } ?? 0
        let mapped = Self.text("/proc/self/status").split(separator: "\n").first { $0.hasPrefix("VmSize:") }
        addressSpace = (mapped.flatMap { Int($0.filter(\.isNumber)) } ?? 0) << 10
    }

    static func entries(_ path: String) -> Int {
        guard let directory = opendir(path) else { return -1 }
        defer { closedir(directory) }
        var count = 0
        while readdir(directory) != nil { count += 1 }
        return count
    }

    /// How many threads of a name wait for something.
    static func sleepingThreads(named name: String) -> Int { threads { $0.contains("(\(name)) S") } }

    /// How many threads have a name that begins so.
    static func threads(namedFrom prefix: String) -> Int { threads { $0.contains("(\(prefix)") } }

    /// How many threads have a line in `/proc` that is meant.
    private static func threads(where isMeant: (String) -> Bool) -> Int {
        guard let directory = opendir("/proc/self/task") else { return 0 }
        defer { closedir(directory) }
        var count = 0
        while let entry = readdir(directory) {
            let task = withUnsafeBytes(of: entry.pointee.d_name) { name in
                String(decoding: name.prefix { $0 != 0 }, as: UTF8.self)
            }
            if isMeant(text("/proc/self/task/\(task)/stat")) { count += 1 }
        }
        return count
    }

    private static func text(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 65_536)
        while case let read = fread(&part, 1, part.count, file), read > 0 { bytes += part[..<read] }
        return String(decoding: bytes, as: UTF8.self)
    }
}
