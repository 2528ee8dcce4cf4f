import Glibc
import SystemPackage
package import UserfaultFD

/// Memory of one type under test: the `view` that is registered, and where there is a file, the `alias`.
///
/// The alias maps the same file MAP_SHARED and is never registered: contents are prepared and inspected through it.
/// The view is MAP_SHARED or MAP_PRIVATE as the memory type says. Both stay where they are until the process ends.
package final class Area: Sendable {
    package let memory: MemoryType
    package let view: Mapping
    package let alias: Mapping?
    package let file: Memfd?
    package let pageSize: PageSize
    /// Where the view starts in the file, in bytes.
    package let fileOffset: Int
    /// Whether nobody else uses the file system that the file lies on, so that its free blocks can be compared.
    package let isAloneOnFileSystem: Bool

    /// An area whose pages are missing: no page in the file, none in the view.
    ///
    /// - Parameters:
    ///   - pages: How many pages, of the memory type's size.
    ///   - offset: How many pages of the file, all holes, lie before the view and the alias.
    ///   - protection: What may be done through the view.
    ///   - directory: A private mount where the file lies, instead of the host's own tmpfs or a memfd.
    ///   - alignment: The view starts at a multiple of this many bytes.
    ///   - reserves: Huge pages are reserved for the mappings, so that an access cannot find the pool empty.
    package init(
        _ context: CaseContext,
        pages: Int = 4,
        offset: Int = 0,
        protection: MemoryProtection = .readWrite,
        directory: String? = nil,
        alignment: Int = 0,
        reserves: Bool = false
    ) throws {
        memory = context.memory
        pageSize = Self.pageSize(of: memory)
        let count = pages * pageSize.bytes
        fileOffset = offset * pageSize.bytes
        isAloneOnFileSystem = directory != nil
        let sharing: Mapping.Sharing = memory.isPrivate ? .private : .shared
        let placement = try Self.placement(count, alignment: max(alignment, pageSize.bytes))
        guard memory != .anon else {
            file = nil
            alias = nil
            view = try Mapping(anonymous: count, protection: protection, placement: placement)
            stay()
            return
        }
        let memfd: Memfd
        if let directory = try directory ?? (memory.isTmpfs ? context.tmpfsDirectory() : nil) {
            memfd = try Memfd(fileIn: directory, count: fileOffset + count)
        } else {
            memfd = try Memfd(
                name: "uffd-selftest", count: fileOffset + count, hugePages: memory.isHugetlb ? pageSize : nil)
        }
        let options: Mapping.Options = memory.isHugetlb && !reserves ? .noReserve : []
        alias = try Mapping(memfd, offset: fileOffset, options: options)
        view = try Mapping(
            memfd, offset: fileOffset, sharing: sharing, protection: protection, placement: placement,
            options: options)
        file = consume memfd
        stay()
    }

    /// The size of the pages of a memory type; of base pages where there is none.
    package static func pageSize(of memory: MemoryType?) -> PageSize {
        memory?.isHugetlb == true ? PageSize.defaultHuge ?? .twoMiB : .base
    }

    /// Keeps the mappings until the process ends: threads, and the kernel, know nothing of references.
    private func stay() {
        _ = Unmanaged.passRetained(self)
    }

    /// A free place for the view: with a gap on both sides, so that it never merges with a neighbour.
    private static func placement(_ count: Int, alignment: Int) throws(UserfaultError) -> Mapping.Placement {
        let gap = PageSize.base.bytes
        let reservation = try Mapping(
            anonymous: count + 2 * alignment + 2 * gap, protection: .none, options: .noReserve)
        let reserved = reservation.release()
        let start = (reserved.start + UInt(gap) + UInt(alignment) - 1) & ~UInt(alignment - 1)
        return .replacing(start)
    }

    // MARK: Addresses

    package var range: AddressRange { view.range }
    package var pageCount: Int { view.pageCount }

    /// A page of the view.
    package func page(_ index: Int) -> AddressRange { view.page(index) }

    /// Neighbouring pages of the view.
    package func pages(_ indices: Range<Int>) -> AddressRange {
        range.part(at: indices.lowerBound * pageSize.bytes, count: indices.count * pageSize.bytes)
    }

    /// The address of a page of the view.
    package func address(_ index: Int) -> UInt { page(index).start }

    /// The address of a page of the alias.
    package func aliasAddress(_ index: Int) throws(CaseFailure) -> UInt {
        guard let address = alias?.page(index).start else {
            throw CaseFailure(expected: "memory with a file", seen: "\(memory)")
        }
        return address
    }

    // MARK: Contents

    /// Puts a page into the file, filled with its pattern, through the alias: no page of the view is touched.
    package func fillFile(_ index: Int, seed: UInt8 = 0) throws(CaseFailure) {
        Pattern.write(seed: seed, page: index, at: try aliasAddress(index), count: pageSize.bytes)
    }

    /// Puts every page into the file.
    package func fillFile(seed: UInt8 = 0) throws(CaseFailure) {
        for index in 0..<pageCount { try fillFile(index, seed: seed) }
    }

    /// A page's worth of its pattern, to copy from.
    ///
    /// It lies outside every area.
    package func source(_ indices: Range<Int>, seed: UInt8 = 0) throws(UserfaultError) -> Mapping {
        let source = try Mapping(anonymous: indices.count * pageSize.bytes)
        for (offset, index) in indices.enumerated() {
            Pattern.write(
                seed: seed, page: index, at: source.range.start + UInt(offset * pageSize.bytes), count: pageSize.bytes)
        }
        return source
    }

    /// Registers the view and fills every page of it with its pattern by COPY.
    package func registerFilled(
        _ uffd: borrowing UserfaultFD, modes: UserfaultFD.RegisterModes = .missing, seed: UInt8 = 0
    ) throws {
        try uffd.register(range, modes: modes)
        try uffd.copy(from: source(0..<pageCount, seed: seed), to: range)
    }

    /// Fails unless a page of the view, which must be mapped, holds its pattern.
    package func expectView(
        _ index: Int, seed: UInt8 = 0, _ what: String = "contents of the view", file: String = #fileID,
        line: Int = #line
    ) throws(CaseFailure) {
        try Pattern.expect(
            seed: seed, page: index, at: address(index), count: pageSize.bytes, what, file: file, line: line)
    }

    /// Fails unless a page of the file, seen through the alias, holds its pattern.
    package func expectFile(
        _ index: Int, seed: UInt8 = 0, _ what: String = "contents of the file", file: String = #fileID,
        line: Int = #line
    ) throws(CaseFailure) {
        try Pattern.expect(
            seed: seed, page: index, at: try aliasAddress(index), count: pageSize.bytes, what, file: file, line: line)
    }

    /// Fails unless every byte of a page of the view, which must be mapped, is zero.
    package func expectZeroView(_ index: Int, file: String = #fileID, line: Int = #line) throws(CaseFailure) {
        try Pattern.expectZero(
            at: address(index), count: pageSize.bytes, "page \(index) of the view", file: file, line: line)
    }

    /// The file's use of memory, in units of 512 bytes.
    package func blocks() throws -> Int {
        try file?.status().blocks ?? 0
    }

    /// Skips where advice that should raise an event has returned without, because this kernel cannot drop such pages.
    package func skipIfRefused(
        _ call: BackgroundCall<Void>, _ context: CaseContext, file: String = #fileID, line: Int = #line
    ) throws {
        guard call.isFinished else { return }
        let error = try expectThrows(
            UserfaultError.self, "the advice waits for its event to be read", file: file, line: line
        ) { () throws(UserfaultError) in
            do { try call.finish() } catch let error as UserfaultError { throw error } catch {}
        }
        try expectEqual(error.errno, .invalidArgument, "errno of advice that raises no event", file: file, line: line)
        try expect(memory.isHugetlb, "the advice drops such pages", seen: "\(error)", file: file, line: line)
        try context.skip(kernel: "this kernel does not drop pages of hugetlbfs (Linux 5.18)")
    }

    /// Drops every page of view and file, as a new area has none.
    package func empty() throws(UserfaultError) {
        // A hole in a file of huge pages unmaps them too; older kernels cannot zap them by advice.
        try file?.punchHole(at: fileOffset, count: range.count)
        if !memory.isHugetlb { try zapView() }
    }

    /// Drops the pages of the view's page tables, and for anonymous memory the pages: what `MADV_DONTNEED` does.
    package func zapView(_ part: AddressRange? = nil) throws(UserfaultError) {
        try view.advise(.dontNeed, part)
    }
}

extension Memfd {
    /// A nameless file on a tmpfs or a hugetlbfs.
    init(fileIn directory: String, count: Int) throws {
        // Made and removed: not every kernel's hugetlbfs has O_TMPFILE.
        let path = "\(directory)/uffd-selftest-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        let descriptor = try FileDescriptor.open(
            FilePath(path), .readWrite, options: [.create, .exclusiveCreate, .closeOnExec],
            permissions: .ownerReadWrite)
        unlink(path)
        let file = try Memfd(adopting: descriptor.rawValue)
        try file.resize(to: count)
        self = file
    }
}
