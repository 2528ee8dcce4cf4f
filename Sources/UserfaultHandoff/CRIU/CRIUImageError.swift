public import UserfaultFD

/// An image file of CRIU that cannot be used.
public struct CRIUImageError: Error, Hashable, Sendable {
    /// What is wrong with it.
    public enum Reason: Error, Hashable, Sendable {
        /// The kernel refused: most often, there is no such file.
        case file(UserfaultError)
        /// The file does not begin as an image of its kind does.
        case badMagic
        /// A message is cut off, or is none.
        case badMessage
        /// A message does not have what every message of its kind has.
        case missingField(String)
        /// The images are of a version that this library does not know.
        case version(UInt64)
        /// The file is longer than any image of its kind.
        case tooLong
        /// A range of pages is not in order, is empty, or leaves the address space.
        case badRange
        /// The pages of an entry are neither in this image, nor in its parent, nor left for a page server.
        case nowhere(address: UInt64)
        /// The images of the pages are shorter than the pagemap says.
        case truncated(bytes: Int, expected: Int)
        /// The pages are in a parent image, and there is none.
        case noParent(address: UInt64)
        /// The pages are left to a page server, and none is known.
        case onServer(address: UInt64)
        /// Where a folder is needed, there is another file.
        case notAFolder
        /// Where a file is needed, there is something else.
        case notAFile
        /// There are more parents than any chain of dumps has.
        case tooManyParents
    }

    /// The file's name in its folder.
    public let file: String
    /// What is wrong with it.
    public let reason: Reason

    init(_ file: String, _ reason: Reason) {
        self.file = file
        self.reason = reason
    }
}

extension CRIUImageError: CustomStringConvertible {
    /// The file and what is wrong with it, for a person.
    public var description: String { "\(file): \(reason)" }
}

extension CRIUImageError.Reason: CustomStringConvertible {
    /// What is wrong, for a person.
    public var description: String {
        switch self {
        case .file(let error): "\(error)"
        case .badMagic: "not an image of this kind"
        case .badMessage: "damaged: a message is cut off or malformed"
        case .missingField(let name): "damaged: a message has no \(name)"
        case .version(let version): "version \(version) of the images is unknown"
        case .tooLong: "longer than any image of this kind"
        case .badRange: "damaged: ranges of pages are out of order or impossible"
        case .nowhere(let address): "damaged: nobody has the pages at 0x\(hex(address))"
        case .truncated(let bytes, let expected): "\(bytes) bytes long: it should have at least \(expected)"
        case .noParent(let address): "the pages at 0x\(hex(address)) are in a parent image, which is missing"
        case .onServer(let address): "the pages at 0x\(hex(address)) are with a page server, and none is named"
        case .notAFolder: "not a folder"
        case .notAFile: "not a regular file"
        case .tooManyParents: "the chain of parent images has no end"
        }
    }
}

func hex(_ number: UInt64) -> String { String(number, radix: 16) }
