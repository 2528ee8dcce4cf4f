/// What may be done with mapped memory.
public struct MemoryProtection: OptionSet, Hashable, Sendable {
    /// The kernel's bits, those that this library does not know included.
    public let rawValue: Int32

    /// A set of the kernel's bits, whatever they are.
    @inlinable
    public init(rawValue: Int32) {
        self.rawValue = rawValue
    }

    /// The corresponding C constant is `PROT_READ`.
    public static var read: MemoryProtection { MemoryProtection(rawValue: 1) }
    /// The corresponding C constant is `PROT_WRITE`.
    public static var write: MemoryProtection { MemoryProtection(rawValue: 2) }
    /// The corresponding C constant is `PROT_EXEC`.
    public static var execute: MemoryProtection { MemoryProtection(rawValue: 4) }
    /// Reading and writing.
    public static var readWrite: MemoryProtection { .read.union(.write) }
    /// No access at all.
    ///
    /// The corresponding C constant is `PROT_NONE`.
    public static var none: MemoryProtection { [] }
}
