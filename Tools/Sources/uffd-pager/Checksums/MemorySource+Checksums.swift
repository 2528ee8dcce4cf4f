import ArgumentParser
import Dispatch
import Glibc
import Synchronization
import SystemPackage
import UserfaultFD
import UserfaultPager

extension MemorySource {
    /// Memory is read in parts of so many bytes: a slow server answers each of them in time.
    private static let partBytes = 1 << 20
    /// A server is asked for so many parts at a time.
    private static let mostParts = 32

    /// The checksums of its pages.
    ///
    /// - Parameter name: What it is called.
    /// - Throws: ``Failure`` with ``ExitCode/unreadable``.
    func checksums(of name: String) throws -> PageChecksums {
        switch self {
        case .file(let file, _): try Self.checksums(of: file.source(), name)
        #if NBD
        case .remote(let memory): try Self.checksums(of: memory, name)
        #endif
        }
    }

    private static func checksums(of source: borrowing FileSource, _ name: String) throws -> PageChecksums {
        var checksums = PageChecksums()
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: partBytes, alignment: 64)
        defer { room.deallocate() }
        let end = PageSize.base.roundUp(source.byteCount)
        var offset = 0
        while offset < end {
            let data = source.extent(from: offset)?.clamped(to: offset..<end) ?? end..<end
            let start = data.lowerBound / PageSize.base.bytes * PageSize.base.bytes
            checksums.appendZeros(start - offset)
            offset = start
            let wanted = min(room.count, PageSize.base.roundUp(data.upperBound) - start)
            guard wanted > 0 else { continue }
            var pages = OutputRawSpan(
                buffer: UnsafeMutableRawBufferPointer(rebasing: room[..<wanted]), initializedCount: 0)
            do {
                guard try source.load(offset: offset, into: &pages) == .data, pages.byteCount > 0 else {
                    throw Errno.ioError
                }
            } catch {
                throw Failure(.unreadable, "\(name) cannot be read at byte \(offset): \(error)")
            }
            let count = pages.finalize(for: UnsafeMutableRawBufferPointer(rebasing: room[..<wanted]))
            checksums.append(UnsafeRawBufferPointer(rebasing: room[..<count]).bytes)
            offset += count
        }
        return checksums
    }

    #if NBD
    private static func checksums(of memory: RemoteMemory, _ name: String) throws -> PageChecksums {
        let end = PageSize.base.roundUp(memory.byteCount(within: .zero) ?? 0)
        var checksums = PageChecksums()
        var missing: [Range<Int>] = []
        for start in stride(from: 0, to: end, by: partBytes) {
            missing.append(start..<min(start + partBytes, end))
            guard missing.count == mostParts || missing.last!.upperBound == end else { continue }
            for part in try Self.checksums(of: missing, in: memory, name) { checksums.append(part) }
            missing = []
        }
        return checksums
    }

    /// Asks for all parts at the same time, and for those that have failed again, as often as for a page.
    private static func checksums(
        of parts: [Range<Int>], in memory: RemoteMemory, _ name: String
    ) throws -> [PageChecksums] {
        let found = Mutex([PageChecksums?](repeating: nil, count: parts.count))
        for attempt in 0...Retries.ofServers {
            if attempt > 0 { poll(nil, 0, 1 << (Int32(attempt) - 1)) }
            let requests = DispatchGroup()
            for (index, part) in parts.enumerated() where found.withLock({ $0[index] == nil }) {
                requests.enter()
                memory.load(
                    PageRequest(offset: part.lowerBound, byteCount: part.count) { reply in
                        let answered = PageChecksums(of: reply, part.count)
                        found.withLock { $0[index] = answered }
                        requests.leave()
                    })
            }
            requests.wait()
            let all = found.withLock { $0.compactMap(\.self) }
            if all.count == parts.count { return all }
        }
        let lost = found.withLock { $0.firstIndex(of: nil) } ?? 0
        throw Failure(
            .unreadable, "\(name) cannot be read from byte \(parts[lost].lowerBound) on: the log says why")
    }
    #endif
}

#if NBD
extension PageChecksums {
    /// The checksums of what a source has answered; `nil` unless that is whole.
    fileprivate init?(of reply: PageReply?, _ byteCount: Int) {
        self.init()
        switch reply {
        case .memory(let address, let count) where count >= byteCount:
            append(UnsafeRawBufferPointer(start: UnsafeRawPointer(bitPattern: address), count: byteCount).bytes)
        case .zeros(let count) where count >= byteCount: appendZeros(byteCount)
        default: return nil
        }
    }
}
#endif
