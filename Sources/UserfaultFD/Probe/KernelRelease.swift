internal import CUserfaultFD

/// What `uname(2)` says.
///
/// For people to read: behaviour is found by trying, unless two kernels give the same answer for different reasons.
struct KernelRelease {
    let release: String
    let machine: String

    static let current = KernelRelease()

    init(release: String, machine: String = "") {
        self.release = release
        self.machine = machine
    }

    /// Whether it is this version or a later one; `false` if it cannot be read.
    func isAtLeast(_ major: Int, _ minor: Int) -> Bool {
        let numbers = release.split(maxSplits: 2, omittingEmptySubsequences: false) { $0 == "." || $0 == "-" }
            .prefix(2).map { Int($0.prefix { $0.isNumber }) }
        guard numbers.count == 2, let thisMajor = numbers[0], let thisMinor = numbers[1] else { return false }
        return (thisMajor, thisMinor) >= (major, minor)
    }

    private init() {
        var releaseBytes = [CChar](repeating: 0, count: 128)
        var machineBytes = [CChar](repeating: 0, count: 64)
        _ = unsafe cuffd_uname(&releaseBytes, releaseBytes.count, &machineBytes, machineBytes.count)
        release = Self.text(releaseBytes)
        machine = Self.text(machineBytes)
    }

    private static func text(_ bytes: [CChar]) -> String {
        String(decoding: bytes.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
