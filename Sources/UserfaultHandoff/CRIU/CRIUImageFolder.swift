internal import SystemPackage
internal import UserfaultFD

/// A folder with the images of a dump, held open.
final class CRIUImageFolder: Sendable {
    private let folder: OwnedDescriptor

    /// No image but the pages is longer than this; it takes a pagemap of a dozen million runs.
    private static let greatestImage = 256 << 20

    /// Longer chains of dumps are loops of links.
    private static let mostParents = 1000

    init(path: String) throws(CRIUImageError) {
        folder = try asImageError(path) { () throws(UserfaultError) in try OwnedDescriptor(opening: path) }
        let isFolder = try asImageError(path) { () throws(UserfaultError) in try folder.status().isDirectory }
        guard isFolder else { throw CRIUImageError(path, .notAFolder) }
    }

    private init(_ folder: consuming OwnedDescriptor) {
        self.folder = folder
    }

    /// A path of a file in the folder that is right whatever the folder is called now, and however long its own is.
    func path(of name: String) -> String { "/proc/self/fd/\(folder.rawValue)/\(name)" }

    /// The tasks of the dump, by their process ids in it.
    func tasks() throws(CRIUImageError) -> [Int32] {
        try decode("inventory.img") { (bytes) throws(CRIUImageError.Reason) in
            try CRIUProcessTree.check(inventory: bytes)
        }
        return try decode("pstree.img") { (bytes) throws(CRIUImageError.Reason) in try CRIUProcessTree.tasks(bytes) }
    }

    /// The pages of a task, in this dump and those that it builds upon.
    func pages(of task: Int32) throws(CRIUImageError) -> CRIUPages {
        var pagemaps: [CRIUPagemap] = []
        var files: [CRIUPages.File] = []
        var level: CRIUImageFolder? = self
        while let folder = level {
            guard pagemaps.count < Self.mostParents else { throw CRIUImageError("parent", .tooManyParents) }
            let name = "pagemap-\(task).img"
            // A task may be younger than the parent dump.
            guard pagemaps.isEmpty || folder.has(name) else { break }
            let pagemap = try folder.decode(name) { (bytes) throws(CRIUImageError.Reason) in try CRIUPagemap(bytes) }
            files.append(try folder.pagesFile(of: pagemap))
            pagemaps.append(pagemap)
            level = try folder.parent()
        }
        let index = CRIUPageIndex(pagemaps)
        let name = "mm-\(task).img"
        let mappings = try decode(name) { (bytes) throws(CRIUImageError.Reason) in try CRIUMemoryMap.mappings(bytes) }
        let size = PageSize.base.bytes
        let counts = mappings.map { index.lazyRanges(in: $0).reduce(0) { $0 + $1.count / size } }
        // What nobody serves would be zeros.
        guard counts.reduce(0, +) == index.lazyPages else {
            throw CRIUImageError(name, .missingField("mapping of pages that were dumped"))
        }
        let lazy = zip(mappings, counts).filter { $0.1 > 0 }.map(\.0)
        return CRIUPages(index: index, files: files, mappings: lazy)
    }

    private func pagesFile(of pagemap: CRIUPagemap) throws(CRIUImageError) -> CRIUPages.File {
        let name = "pages-\(pagemap.pagesID).img"
        let expected = Int(pagemap.bytesInFile)
        // All pages are the parent's, or the page server's.
        guard expected > 0 else { return CRIUPages.File(name: name, nil) }
        let descriptor = try open(name)
        let count = try asImageError(name) { () throws(UserfaultError) in try descriptor.status().count }
        guard count >= expected else { throw CRIUImageError(name, .truncated(bytes: count, expected: expected)) }
        return CRIUPages.File(name: name, descriptor)
    }

    private func has(_ name: String) -> Bool { (try? OwnedDescriptor(opening: path(of: name))) != nil }

    private func open(_ name: String) throws(CRIUImageError) -> OwnedDescriptor {
        let descriptor = try asImageError(name) { () throws(UserfaultError) in
            try OwnedDescriptor(opening: path(of: name))
        }
        let isFile = try asImageError(name) { () throws(UserfaultError) in try descriptor.status().isRegular }
        guard isFile else { throw CRIUImageError(name, .notAFile) }
        return descriptor
    }

    private func parent() throws(CRIUImageError) -> CRIUImageFolder? {
        do throws(UserfaultError) {
            return CRIUImageFolder(try OwnedDescriptor(opening: path(of: "parent")))
        } catch {
            guard error.errno == .noSuchFileOrDirectory else { throw CRIUImageError("parent", .file(error)) }
            return nil
        }
    }

    private func decode<Result>(
        _ name: String, _ body: (ArraySlice<UInt8>) throws(CRIUImageError.Reason) -> Result
    ) throws(CRIUImageError) -> Result {
        let bytes = try read(name)
        do throws(CRIUImageError.Reason) { return try body(bytes[...]) } catch { throw CRIUImageError(name, error) }
    }

    private func read(_ name: String) throws(CRIUImageError) -> [UInt8] {
        let file = try open(name)
        let count = try asImageError(name) { () throws(UserfaultError) in try file.status().count }
        guard count <= Self.greatestImage else { throw CRIUImageError(name, .tooLong) }
        var failure: UserfaultError?
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, used in
            let room = unsafe UnsafeMutableRawBufferPointer(start: buffer.baseAddress, count: count)
            do throws(UserfaultError) { used = unsafe try file.read(into: room, at: 0) } catch { failure = error }
        }
        if let failure { throw CRIUImageError(name, .file(failure)) }
        return bytes
    }
}

/// Calls the kernel about a file.
private func asImageError<Result: ~Copyable>(
    _ name: String, _ body: () throws(UserfaultError) -> Result
) throws(CRIUImageError) -> Result {
    do throws(UserfaultError) { return try body() } catch { throw CRIUImageError(name, .file(error)) }
}
