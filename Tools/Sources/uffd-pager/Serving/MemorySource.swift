import ArgumentParser
import SystemPackage
import UserfaultHandoff
import UserfaultPager

#if NBD
import UserfaultNBD
#endif

/// Where the memory of machines comes from: a file, a block device, or an export of an NBD server.
enum MemorySource: Sendable {
    case file(MemoryFile)
    #if NBD
    /// One connection for all machines.
    case nbd(NBDSource)
    #endif

    /// - Parameter name: A path, or an `nbd` URI.
    /// - Throws: ``Failure`` with ``ExitCode/unreadable``.
    init(_ name: String) throws {
        guard
            name.hasPrefix("nbd:") || name.hasPrefix("nbds:") || name.hasPrefix("nbd+unix:")
                || name.hasPrefix("nbds+unix:")
        else {
            self = .file(try MemoryFile(name))
            return
        }
        #if NBD
        do {
            self = .nbd(try NBDSource(name))
        } catch {
            throw Failure(.unreadable, "\(name): \(error)")
        }
        #else
        throw Failure(.unavailable, "\(name): this program was built without NBD (swift build --traits NBD)")
        #endif
    }

    /// In bytes.
    var byteCount: Int {
        switch self {
        case .file(let file): file.byteCount
        #if NBD
        case .nbd(let source): Int(clamping: source.export.byteCount)
        #endif
        }
    }

    /// Begins to serve memory from here.
    func serve(
        _ memory: consuming HandedMemory, _ configuration: PagerConfiguration, _ options: RegionOptions
    ) throws -> any SessionPager {
        switch self {
        case .file(let file):
            let source = try file.source()
            guard memory.file != nil else {
                return try memory.serve(from: source, configuration: configuration, options: options).pager
            }
            let pages = try SharedPages(memory.file!, from: source)
            return try memory.serve(from: pages.source, configuration: configuration, options: options).pager
        #if NBD
        case .nbd(let source):
            guard memory.file == nil else {
                let text = "a memory file is filled from files only, not from NBD"
                memory.refuse(text)
                throw HandoffError.malformed(text)
            }
            return try memory.serve(
                from: AsynchronousSource(source), configuration: configuration, options: options
            ).pager
        #endif
        }
    }
}
