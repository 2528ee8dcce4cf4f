internal import SystemPackage
internal import UserfaultFD

/// A folder with one machine, in the files that Cloud Hypervisor's own offload daemon makes.
///
/// They are `migration_config.json`, `state.json`, and `memory-N` for each slot. The state is written last, so that a folder
/// with a state is complete.
struct CloudHypervisorFolder {
    static let config = "migration_config.json"
    static let state = "state.json"

    private static let chunkBytes = 1 << 20

    let path: String
    private let folder: OpenFile

    /// Opens a folder.
    ///
    /// - Throws: ``CloudHypervisorError/folder(_:)`` if it is not there.
    init(path: String) throws(CloudHypervisorError) {
        self.path = path
        let isFolder: Bool
        do throws(UserfaultError) {
            folder = OpenFile(try OwnedDescriptor(opening: path))
            isFolder = try folder.file.status().isDirectory
        } catch {
            throw .folder("\(path): \(error)")
        }
        guard isFolder else { throw .folder("\(path) is not a folder") }
    }

    /// A path of a file in this folder, whatever the folder is called now.
    private func place(of name: String) -> String { "/proc/self/fd/\(folder.file.rawValue)/\(name)" }

    static func memory(_ slot: UInt32) -> String { "memory-\(slot)" }

    private func failed(_ name: String, _ error: UserfaultError) -> CloudHypervisorError {
        .folder("\(path)/\(name): \(error)")
    }

    /// - Throws: ``CloudHypervisorError/folder(_:)`` if the folder has a machine already.
    func checkEmpty() throws(CloudHypervisorError) {
        do throws(UserfaultError) {
            _ = try OwnedDescriptor(openingNoLink: place(of: Self.state), isReadOnly: true)
        } catch {
            guard error.errno == .noSuchFileOrDirectory else { throw failed(Self.state, error) }
            return
        }
        throw .folder("\(path) has a machine already")
    }

    /// Reads a whole file.
    func read(_ name: String, limit: Int) throws(CloudHypervisorError) -> [UInt8] {
        let (file, count) = try open(name)
        guard count <= limit else { throw .folder("\(path)/\(name) has more than \(limit) bytes") }
        do throws(UserfaultError) {
            return try Self.bytes(of: file.file, at: 0, count)
        } catch {
            throw failed(name, error)
        }
    }

    /// Opens a file, to be read: itself, and how many bytes it has.
    private func open(_ name: String) throws(CloudHypervisorError) -> (OpenFile, Int) {
        do throws(UserfaultError) {
            let file = OpenFile(try OwnedDescriptor(openingNoLink: place(of: name), isReadOnly: true))
            return (file, try file.file.status().count)
        } catch {
            throw failed(name, error)
        }
    }

    private static func bytes(
        of file: borrowing OwnedDescriptor, at offset: Int, _ count: Int
    ) throws(UserfaultError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var span = bytes.mutableSpan
        var room = unsafe span.mutableBytes
        try file.read(into: &room, at: offset)
        return bytes
    }

    /// Writes a whole file beside what it had, and then in its place: nobody finds a part of it, even after a crash.
    func write(_ bytes: [UInt8], _ name: String) throws(CloudHypervisorError) {
        do throws(UserfaultError) {
            let beside = place(of: ".\(name).new")
            let file = try OwnedDescriptor(openingNoLink: beside, isReadOnly: false)
            try file.resize(to: 0)
            try unsafe file.write(bytes.span.bytes, at: 0)
            try file.synchronize()
            // Files that were made before are to be found after a crash if this one is.
            try folder.file.synchronize()
            try OwnedDescriptor.rename(beside, to: place(of: name))
            try folder.file.synchronize()
        } catch {
            throw failed(name, error)
        }
    }

    /// Opens the memory of a slot.
    ///
    /// - Throws: ``CloudHypervisorError/folder(_:)`` unless it has the slot's length.
    func memory(of slot: CloudHypervisorLayout.Slot) throws(CloudHypervisorError) -> OpenFile {
        let name = Self.memory(slot.number)
        let (file, count) = try open(name)
        guard count == slot.byteCount else {
            throw .folder("\(path)/\(name) has \(count) bytes, and its slot \(slot.byteCount)")
        }
        return file
    }

    /// Saves the memory of a slot; what is a hole stays one.
    func save(
        _ memory: borrowing OwnedDescriptor, _ slot: CloudHypervisorLayout.Slot
    ) throws(CloudHypervisorError) {
        let name = Self.memory(slot.number)
        do throws(UserfaultError) {
            let file = try OwnedDescriptor(openingNoLink: place(of: name), isReadOnly: false)
            try file.resize(to: 0)
            try file.resize(to: slot.byteCount)
            try Self.copy(memory, from: slot.fileOffset, to: file, at: 0, slot.byteCount)
            try file.synchronize()
        } catch {
            throw failed(name, error)
        }
    }

    /// Copies what a part of a file has, and leaves holes out.
    static func copy(
        _ source: borrowing OwnedDescriptor, from start: Int, to target: borrowing OwnedDescriptor, at place: Int,
        _ count: Int
    ) throws(UserfaultError) {
        let end = start + count
        var position = start
        while position < end, let data = try source.dataRange(from: position), data.lowerBound < end {
            position = max(position, data.lowerBound)
            let dataEnd = min(data.upperBound, end)
            while position < dataEnd {
                let part = try bytes(of: source, at: position, min(chunkBytes, dataEnd - position))
                try unsafe target.write(part.span.bytes, at: place + position - start)
                position += part.count
            }
        }
    }
}

/// A file that may be in a collection.
final class OpenFile {
    let file: OwnedDescriptor

    init(_ file: consuming OwnedDescriptor) {
        self.file = file
    }
}
