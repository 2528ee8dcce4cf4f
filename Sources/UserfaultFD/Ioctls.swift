extension UserfaultFD {
    /// The ioctls that a kernel reports, for the descriptor (`UFFDIO_API`) or for a range (`UFFDIO_REGISTER`).
    ///
    /// The kernel computes a range's set from the request and not from the memory: a bit is necessary for the call to
    /// work, not sufficient. `UFFDIO_MOVE` is reported for shared memory too, where it always fails.
    public struct Ioctls: OptionSet, Hashable, Sendable {
        /// The kernel's bits, those that this library does not know included.
        public let rawValue: UInt64

        /// A set of the kernel's bits, whatever they are.
        @inlinable
        public init(rawValue: UInt64) {
            self.rawValue = rawValue
        }

        /// The corresponding ioctl is `UFFDIO_REGISTER`.
        public static var register: Ioctls { Ioctls(rawValue: 1 << 0x00) }
        /// The corresponding ioctl is `UFFDIO_UNREGISTER`.
        public static var unregister: Ioctls { Ioctls(rawValue: 1 << 0x01) }
        /// The corresponding ioctl is `UFFDIO_WAKE`.
        public static var wake: Ioctls { Ioctls(rawValue: 1 << 0x02) }
        /// The corresponding ioctl is `UFFDIO_COPY`.
        public static var copy: Ioctls { Ioctls(rawValue: 1 << 0x03) }
        /// The corresponding ioctl is `UFFDIO_ZEROPAGE`; it does not exist for huge pages of hugetlbfs.
        public static var zeropage: Ioctls { Ioctls(rawValue: 1 << 0x04) }
        /// The corresponding ioctl is `UFFDIO_MOVE`.
        public static var move: Ioctls { Ioctls(rawValue: 1 << 0x05) }
        /// The corresponding ioctl is `UFFDIO_WRITEPROTECT`.
        public static var writeProtect: Ioctls { Ioctls(rawValue: 1 << 0x06) }
        /// The corresponding ioctl is `UFFDIO_CONTINUE`.
        public static var `continue`: Ioctls { Ioctls(rawValue: 1 << 0x07) }
        /// The corresponding ioctl is `UFFDIO_POISON`.
        public static var poison: Ioctls { Ioctls(rawValue: 1 << 0x08) }
        /// The corresponding ioctl is `UFFDIO_RWPROTECT`.
        public static var rwProtect: Ioctls { Ioctls(rawValue: 1 << 0x09) }
        /// The corresponding ioctl is `UFFDIO_SET_MODE`.
        public static var setMode: Ioctls { Ioctls(rawValue: 1 << 0x0A) }
        /// The corresponding ioctl is `UFFDIO_API`.
        public static var api: Ioctls { Ioctls(rawValue: 1 << 0x3F) }
    }
}

extension UserfaultFD.Ioctls {
    /// The features that a kernel with these ioctls has at least.
    var impliedFeatures: UserfaultFD.Features {
        var features: UserfaultFD.Features = []
        if contains(.writeProtect) { features.formUnion(.writeProtect) }
        if contains(.continue) { features.formUnion(.minorHugetlbfs) }
        if contains(.poison) { features.formUnion([.poison, .writeProtectUnpopulated]) }
        if contains(.move) { features.formUnion(.move) }
        if contains(.rwProtect) { features.formUnion(.readWriteProtect) }
        return features
    }
}

extension UserfaultFD.Ioctls: CustomStringConvertible {
    /// Every ioctl this library knows, with its C name, in the order of the bits.
    public static let names: [(ioctl: UserfaultFD.Ioctls, name: String)] = [
        (.register, "REGISTER"), (.unregister, "UNREGISTER"), (.wake, "WAKE"), (.copy, "COPY"),
        (.zeropage, "ZEROPAGE"), (.move, "MOVE"), (.writeProtect, "WRITEPROTECT"), (.continue, "CONTINUE"),
        (.poison, "POISON"), (.rwProtect, "RWPROTECT"), (.setMode, "SET_MODE"), (.api, "API"),
    ]

    /// The names of the bits that are known, then the rest as a number.
    public var description: String {
        describeFlags(self, Self.names.map { ($0.ioctl, $0.name) })
    }
}
