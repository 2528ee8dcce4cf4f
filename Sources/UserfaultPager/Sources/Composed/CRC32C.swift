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
            guard let table = tables.baseAddress, let start = bytes.baseAddress else { return before }
            var value = ~before
            var at = 0
            // Written out: programs are also run without optimization.
            while at &+ 8 <= bytes.count {
                let low = unsafe UInt32(littleEndian: start.loadUnaligned(fromByteOffset: at, as: UInt32.self)) ^ value
                let high = unsafe UInt32(littleEndian: start.loadUnaligned(fromByteOffset: at &+ 4, as: UInt32.self))
                value = unsafe table[7 &* 256 &+ Int(low & 0xFF)]
                unsafe value ^= table[6 &* 256 &+ Int(low &>> 8 & 0xFF)]
                unsafe value ^= table[5 &* 256 &+ Int(low &>> 16 & 0xFF)]
                unsafe value ^= table[4 &* 256 &+ Int(low &>> 24)]
                unsafe value ^= table[3 &* 256 &+ Int(high & 0xFF)]
                unsafe value ^= table[2 &* 256 &+ Int(high &>> 8 & 0xFF)]
                unsafe value ^= table[256 &+ Int(high &>> 16 & 0xFF)]
                unsafe value ^= table[Int(high &>> 24)]
                at &+= 8
            }
            while at < bytes.count {
                value = unsafe value &>> 8 ^ table[Int((value ^ UInt32(bytes[at])) & 0xFF)]
                at &+= 1
            }
            return ~value
        }
    }
}
