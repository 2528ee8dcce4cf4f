internal import UserfaultPager

/// The fixed part of what Cloud Hypervisor's migration protocol says, in both directions: 16 bytes, little-endian.
///
/// | at | bytes | |
/// | --- | --- | --- |
/// | 0 | 2 | the command, or the status of a response |
/// | 2 | 6 | of `start`: the version in two bytes; else 0 |
/// | 8 | 8 | the bytes that follow |
struct CloudHypervisorHeader: Hashable {
    static let byteCount = 16

    var code: UInt16
    var version: UInt16 = 0
    var length: UInt64 = 0

    init(_ command: CloudHypervisorCommand, length: Int = 0) {
        code = command.rawValue
        self.length = UInt64(length)
    }

    init(status: CloudHypervisorStatus) {
        code = status.rawValue
    }

    /// - Precondition: There are ``byteCount`` bytes.
    init(_ bytes: [UInt8]) {
        var reader = WordReader(bytes)
        code = reader.next(UInt16.self)
        version = reader.next(UInt16.self)
        _ = reader.next(UInt32.self)
        length = reader.next(UInt64.self)
    }

    var bytes: [UInt8] {
        var writer = WordWriter()
        writer.append(code)
        writer.append(version)
        writer.append(UInt32(0))
        writer.append(length)
        return writer.bytes
    }
}

enum CloudHypervisorCommand: UInt16 {
    case start = 1
    case config, state, memory, complete, abandon, memoryFile, completePaused, pageFault
}

enum CloudHypervisorStatus: UInt16 {
    case ok = 1
    case error
}

/// What the first two bytes of a second connection say that it is for.
enum CloudHypervisorRole: UInt16 {
    case faults = 2

    var bytes: [UInt8] {
        var writer = WordWriter()
        writer.append(rawValue)
        return writer.bytes
    }
}
