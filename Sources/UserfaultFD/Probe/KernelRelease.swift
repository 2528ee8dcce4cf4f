internal import CUserfaultFD

/// What `uname(2)` says.
///
/// For people to read: behaviour is found by trying.
struct KernelRelease {
    let release: String
    let machine: String

    static let current = KernelRelease()

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
