public import UserfaultFD
internal import UserfaultPager

/// What a successor must know of a client, besides its descriptors: pure, bytes in and fields out.
///
/// A server writes it into a memory file, which whoever keeps the client's descriptors keeps with them. A newer program
/// may read what an older one has written, so the record has a version. All numbers are little-endian.
///
/// | at | bytes | |
/// | --- | --- | --- |
/// | 0 | 8 | `UFFDKEPT` |
/// | 8 | 4 | the version: 2 if the client has a memory file, which others keep too, else 1 |
/// | 12 | 4 | 1 as soon as pages may have been filled, else 0 |
/// | 16 | 4 | what the client speaks: 0 Firecracker's protocol, 1 ``HandoffMessage`` |
/// | 20 | 4 | the length of the machine's name |
/// | 24 | 4 | the length of what identifies the source |
/// | 28 | 4 | the process that connected, 0 if that is not known |
/// | 32 | | the machine's name and what identifies the source, in UTF-8 |
/// | | | the flags, features and regions, as a ``HandoffMessage`` has them |
public struct KeptRecord: Hashable, Sendable {
    /// The latest version that this library writes.
    public static let version = 2

    /// The machine that the client belongs to, as its server names it.
    public var machine: String
    /// The process that connected, as its server's process sees it; 0 if that is not known.
    public var process: Int32
    /// Identifies the content of the source: a successor must not serve other content.
    public var source: String
    /// Whether pages may have been filled.
    public var isBegun: Bool
    /// What the client speaks.
    public var format: HandoffFormat
    /// The client's regions, and how its descriptor was opened.
    public var content: HandoffMessage.Content

    private static let magic = Array("UFFDKEPT".utf8)
    private static let headerBytes = 32
    private static let begunOffset = 12
    private static let limits = HandoffLimits()
    /// No name is longer, and no path.
    private static let textLimit = 8192
    private static let formats: [HandoffFormat] = [.firecracker, .handoff]

    /// What a record is to say.
    public init(
        machine: String, process: Int32 = 0, source: String, isBegun: Bool = false, format: HandoffFormat,
        content: HandoffMessage.Content
    ) {
        self.machine = machine
        self.process = process
        self.source = source
        self.isBegun = isBegun
        self.format = format
        self.content = content
    }

    /// Reads a record.
    ///
    /// - Throws: ``HandoffError/version(_:)`` for one of a later version; ``HandoffError/malformed(_:)`` and others, as
    ///   ``HandoffMessage/consume(_:)``, for what is no record.
    public init(bytes: [UInt8]) throws(HandoffError) {
        guard bytes.count >= Self.headerBytes, bytes.starts(with: Self.magic) else {
            throw .malformed("it is not a record of a client")
        }
        var reader = WordReader(bytes, from: Self.magic.count)
        let version = Int(reader.next(UInt32.self))
        guard (1...Self.version).contains(version) else { throw .version(version) }
        let begun = reader.next(UInt32.self)
        let format = Int(reader.next(UInt32.self))
        let lengths = [Int(reader.next(UInt32.self)), Int(reader.next(UInt32.self))]
        let process = reader.next(UInt32.self)
        guard begun <= 1, Self.formats.indices.contains(format), process <= UInt32(Int32.max),
            lengths.allSatisfy({ $0 <= Self.textLimit }), lengths[0] + lengths[1] <= bytes.count - Self.headerBytes
        else { throw .malformed("the record of a client is damaged") }
        let texts = bytes.dropFirst(Self.headerBytes)
        guard let machine = String(validating: texts.prefix(lengths[0]), as: UTF8.self),
            let source = String(validating: texts.dropFirst(lengths[0]).prefix(lengths[1]), as: UTF8.self)
        else { throw .malformed("a name in the record of a client is not in UTF-8") }
        var message = HandoffMessage(limits: Self.limits)
        guard let content = try message.consume(texts.dropFirst(lengths[0] + lengths[1])) else {
            throw .malformed("the record of a client is not complete")
        }
        guard version == Self.version(for: content) else { throw .malformed("the record of a client is damaged") }
        self.init(
            machine: machine, process: Int32(process), source: source, isBegun: begun == 1,
            format: Self.formats[format], content: content)
    }

    /// A program that does not know of memory files must not take such a client over.
    private static func version(for content: HandoffMessage.Content) -> Int {
        content.flags.contains(.memoryFile) ? 2 : 1
    }

    /// The bytes of the record.
    public var bytes: [UInt8] {
        var writer = WordWriter(Self.magic)
        writer.append(UInt32(Self.version(for: content)))
        writer.append(UInt32(isBegun ? 1 : 0))
        writer.append(UInt32(Self.formats.firstIndex(of: format)!))
        writer.append(UInt32(machine.utf8.count))
        writer.append(UInt32(source.utf8.count))
        writer.append(UInt32(process))
        return writer.bytes + Array(machine.utf8) + Array(source.utf8) + content.bytes
    }

    // MARK: In a memory file

    /// The name of the memory file, as `/proc` shows it.
    public static let fileName = "pager-record"

    /// Writes the record into a memory file.
    ///
    /// - Throws: ``HandoffError/kernel(_:)``: `EMFILE`, `ENOMEM`.
    public func makeFile() throws(HandoffError) -> Memfd {
        let bytes = bytes
        return try asHandoffError { () throws(UserfaultError) in
            let file = try Memfd(name: Self.fileName, count: bytes.count)
            try unsafe file.write(bytes.span.bytes, at: 0)
            return file
        }
    }

    /// Reads the record in a memory file.
    ///
    /// - Throws: As ``init(bytes:)``; ``HandoffError/kernel(_:)``.
    public init(file: borrowing Memfd) throws(HandoffError) {
        let bytes = try contents(of: file)
        try self.init(bytes: bytes)
    }

    /// Says in a memory file that pages may be filled from now on.
    public static func noteBegun(in file: borrowing Memfd) throws(HandoffError) {
        var writer = WordWriter()
        writer.append(UInt32(1))
        let bytes = writer.bytes
        try asHandoffError { () throws(UserfaultError) in
            try unsafe file.write(bytes.span.bytes, at: begunOffset)
        }
    }
}

/// The content of a memory file that is no longer than a record may be.
private func contents(of file: borrowing Memfd) throws(HandoffError) -> [UInt8] {
    let limit = HandoffLimits().messageBytes
    let count: Int
    do throws(UserfaultError) { count = try file.status().count } catch { throw .kernel(error) }
    guard count <= limit else { throw .tooLong(limit: limit) }
    var bytes = [UInt8](repeating: 0, count: count)
    do throws(UserfaultError) {
        var span = bytes.mutableSpan
        var raw = unsafe span.mutableBytes
        try file.read(into: &raw, at: 0)
    } catch { throw .kernel(error) }
    return bytes
}
