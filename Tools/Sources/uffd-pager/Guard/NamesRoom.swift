import Glibc

/// Room for the names of descriptors in one variable of the environment, in which systemd passes them: with more names than that may
/// have, it could not start the service again.
struct NamesRoom {
    /// How many descriptors this program has under each name.
    private var counts: [String: Int]
    /// Bytes that the variable may have, and those that it has left.
    private let limit: Int
    private var left: Int

    /// With the names that this process was passed.
    init() {
        counts = PassedDescriptors.storedCounts
        // The kernel's MAX_ARG_STRLEN; the rest is for the variable's own name, and for sockets that systemd makes later.
        limit = 32 * sysconf(Int32(_SC_PAGESIZE)) - 4096
        left = limit - PassedDescriptors.counts.reduce(0) { $0 + Self.bytes(of: $1.value, named: $1.key) }
    }

    /// What names take in the variable, with a separator each.
    private static func bytes(of count: Int, named name: String) -> Int { count * (name.utf8.count + 1) }

    func has(_ name: String) -> Bool { counts[name] != nil }

    /// - Parameter isReplacing: Whether the name has had its room before.
    mutating func take(_ count: Int, under name: String, isReplacing: Bool = false) throws(KeepError) {
        let bytes = Self.bytes(of: count, named: name)
        guard left - bytes >= (KeptName.leavesHalf(name) && !isReplacing ? limit / 2 : 0) else { throw .tooManyNames }
        left -= bytes
        counts[name, default: 0] += count
    }

    /// Of a name that has others besides.
    mutating func giveBack(_ count: Int, under name: String) {
        let before = remove(name)
        left -= Self.bytes(of: before - count, named: name)
        if before > count { counts[name] = before - count }
    }

    /// - Returns: How many descriptors it had.
    mutating func remove(_ name: String) -> Int {
        let count = counts.removeValue(forKey: name) ?? 0
        left += Self.bytes(of: count, named: name)
        return count
    }
}
