import CSelftestSupport
import CUserfaultFD
import SystemPackage
package import UserfaultFD

/// What a raw read of messages did: the answer, and every byte of the buffer.
package struct RawReading {
    /// The bytes read.
    package var count = 0
    /// 0, or the errno.
    package var errno: Int32 = 0
    /// The buffer; a byte that nobody wrote is ``untouched``.
    package var bytes: [UInt8]

    package static let untouched: UInt8 = 0xA5
    package static let messageSize = 32

    package func word(_ offset: Int) -> UInt64 {
        (0..<8).reduce(0) { $0 | UInt64(bytes[offset + $1]) << (8 * $1) }
    }

    /// The address of the page fault that is the message of this index.
    package func address(_ index: Int) -> UInt { UInt(word(index * Self.messageSize + 16)) }
}

extension UserfaultFD {
    /// Reads into a buffer of any size by one system call.
    package func rawRead(_ size: Int, by call: (Int32, UnsafeMutableRawPointer) -> Int) -> RawReading {
        var reading = RawReading(bytes: [UInt8](repeating: RawReading.untouched, count: max(size, 1)))
        let answer = withUnsafeDescriptor { descriptor in
            reading.bytes.withUnsafeMutableBytes { call(descriptor.rawValue, $0.baseAddress!) }
        }
        reading.count = max(0, answer)
        reading.errno = Int32(max(0, -answer))
        return reading
    }

    /// Reads by `read(2)`.
    package func rawRead(_ size: Int) -> RawReading {
        rawRead(size) { css_read($0, $1, size) }
    }

    /// The events of `poll(2)` now.
    package func rawPoll(_ events: Int16 = 0x7FFF, milliseconds: Int32 = 0) -> Int32 {
        withUnsafeDescriptor { cuffd_poll($0.rawValue, events, milliseconds) }
    }
}
