/// Writes images as CRIU does, right ones and wrong ones.
struct CRIUImageWriter {
    private(set) var bytes: [UInt8] = []

    enum Value {
        case number(UInt64)
        case bytes([UInt8])
    }

    typealias Field = (number: UInt64, value: Value)

    init(magic: UInt32, isCommon: Bool = true) {
        if isCommon { append(0x5456_4319) }
        append(magic)
    }

    private mutating func append(_ word: UInt32) {
        for position in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: word >> UInt32(8 * position))) }
    }

    mutating func append(_ fields: [Field]) {
        let message = Self.message(fields)
        append(UInt32(message.count))
        bytes += message
    }

    static func message(_ fields: [Field]) -> [UInt8] {
        var message: [UInt8] = []
        for field in fields {
            switch field.value {
            case .number(let value): message += varint(field.number << 3) + varint(value)
            case .bytes(let value): message += varint(field.number << 3 | 2) + varint(UInt64(value.count)) + value
            }
        }
        return message
    }

    static func varint(_ value: UInt64) -> [UInt8] {
        var left = value
        var bytes: [UInt8] = []
        while left >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: left) | 0x80)
            left >>= 7
        }
        return bytes + [UInt8(left)]
    }

    /// A pagemap: each run is its address, its pages, and its flags or none.
    static func pagemap(_ runs: [(UInt64, UInt64, UInt64?)], pagesID: UInt64 = 1) -> [UInt8] {
        var writer = CRIUImageWriter(magic: 0x5608_4025)
        writer.append([(1, .number(pagesID))])
        for (address, pages, flags) in runs {
            let known: [Field] = flags.map { [(4, .number($0))] } ?? []
            writer.append([(1, .number(address)), (2, .number(pages))] + known)
        }
        return writer.bytes
    }

    static func mapping(_ start: UInt64, _ end: UInt64) -> Field {
        (14, .bytes(message([(1, .number(start)), (2, .number(end)), (5, .number(3))])))
    }

    static func memoryMap(_ mappings: [Field]) -> [UInt8] {
        var writer = CRIUImageWriter(magic: 0x5749_2820)
        writer.append([(1, .number(0x400000))] + mappings)
        return writer.bytes
    }

    static func processTree(_ tasks: [UInt64]) -> [UInt8] {
        var writer = CRIUImageWriter(magic: 0x5027_3030)
        for task in tasks { writer.append([(1, .number(task)), (2, .number(0)), (5, .number(task))]) }
        return writer.bytes
    }

    static func inventory(version: UInt64 = 2) -> [UInt8] {
        var writer = CRIUImageWriter(magic: 0x5831_3116, isCommon: false)
        writer.append([(1, .number(version)), (2, .number(1))])
        return writer.bytes
    }
}
