import ArgumentParser
import SystemPackage
import UserfaultPager

struct ChecksumsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "checksums",
        abstract: "Write the checksums of a memory's pages, for --checksums.",
        discussion: """
            Take them where the memory is made: they find what is damaged later, on its way or at its server. They do not \
            find what somebody has changed on purpose.

            The file has four bytes for each page of the host's page size: its CRC-32C, little-endian, in the order of the \
            pages. Zeros complete the last page.

            Exit codes: 0 done; 64 wrong usage; 66 the memory cannot be read; 73 the file cannot be written.
            """)

    @Argument(help: ArgumentHelp("The memory: a file or a block device.", valueName: "memory"), completion: .file())
    var memory: String

    @Option(help: ArgumentHelp("Write to this file.", valueName: "file"), completion: .file())
    var output: String

    func run() throws {
        let memory = try MemoryFile(memory)
        let checksums = try memory.checksums()
        do {
            try WholeFile.write(checksums.bytes, to: output)
        } catch {
            throw Failure(.uncreatable, "\(output) cannot be written: \(error)")
        }
    }
}

extension MemoryFile {
    /// The checksums of its pages.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/unreadable``.
    fileprivate func checksums() throws -> PageChecksums {
        let source = try source()
        var checksums = PageChecksums()
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 64)
        defer { room.deallocate() }
        var offset = 0
        while offset < source.byteCount {
            let wanted = min(room.count, source.byteCount - offset)
            var pages = OutputRawSpan(
                buffer: UnsafeMutableRawBufferPointer(rebasing: room[..<wanted]), initializedCount: 0)
            do {
                guard try source.load(offset: offset, into: &pages) == .data, pages.byteCount > 0 else {
                    throw Errno.ioError
                }
            } catch {
                throw Failure(.unreadable, "\(path) cannot be read at byte \(offset): \(error)")
            }
            let count = pages.finalize(for: UnsafeMutableRawBufferPointer(rebasing: room[..<wanted]))
            checksums.append(UnsafeRawBufferPointer(rebasing: room[..<count]).bytes)
            offset += count
        }
        return checksums
    }
}
