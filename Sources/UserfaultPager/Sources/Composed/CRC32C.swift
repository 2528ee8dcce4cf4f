/// CRC-32C (Castagnoli), eight bytes at a time.
enum CRC32C {
    /// For each place of eight, what a byte there contributes.
    private static let tables: [UInt32] = {
        var tables = [UInt32](repeating: 0, count: 8 * 256)
        for byte in 0..<256 {
            var value = UInt32(byte)
            for _ in 0..<8 { value = value & 1 == 1 ? value >> 1 ^ 0x82F6_3B78 : value >> 1 }
            tables[byte] = value
        }
        for place in 1..<8 {
            for byte in 0..<256 {
                let before = tables[(place - 1) * 256 + byte]
                tables[place * 256 + byte] = before >> 8 ^ tables[Int(before & 0xFF)]
            }
        }
        return tables
    }()

    /// The checksum of bytes, or of bytes that follow others.
    static func checksum(of bytes: UnsafeRawBufferPointer, after before: UInt32 = 0) -> UInt32 {
        unsafe tables.withUnsafeBufferPointer { tables in
            func entry(_ place: Int, _ byte: UInt64) -> UInt32 { unsafe tables[place * 256 + Int(byte & 0xFF)] }
            var value = ~before
            var at = 0
            while at + 8 <= bytes.count {
                let word =
                    unsafe UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: at, as: UInt64.self))
                    ^ UInt64(value)
                value = (0..<8).reduce(0) { $0 ^ entry(7 - $1, word >> UInt64($1 * 8)) }
                at += 8
            }
            while at < bytes.count {
                value = unsafe value >> 8 ^ entry(0, UInt64(value) ^ UInt64(bytes[at]))
                at += 1
            }
            return ~value
        }
    }
}
