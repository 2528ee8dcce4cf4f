internal import Synchronization
internal import SystemPackage
internal import UserfaultFD

/// The file of a cache, as far as it can be used.
final class CacheDisk: Sendable {
    private let file: ChunkFile?
    private let counters: CacheCounters
    private let isWritable: Atomic<Bool>
    private let hasFailedToRead = Atomic<Bool>(false)
    private let report: (@Sendable (ChunkCache.Report) -> Void)?

    /// - Throws: ``PagerError/file(_:path:)`` unless it is only that nothing can be written there.
    init(
        _ folder: String, _ configuration: ChunkCache.Configuration, _ counters: CacheCounters
    ) throws(PagerError) {
        self.counters = counters
        report = configuration.report
        let (bytes, chunkBytes) = (configuration.diskBytes, configuration.chunkBytes)
        do throws(UserfaultError) {
            file = try ChunkFile(folder: folder, byteCount: bytes, chunkBytes: chunkBytes)
            isWritable = Atomic(true)
        } catch {
            let refusals: [Errno] = [
                .permissionDenied, .notPermitted, .readOnlyFileSystem, .noSpace, .diskQuotaExceeded,
                .fileTooLarge,
            ]
            guard refusals.contains(error.errno) else { throw .file(error.errno, path: folder) }
            file = try? ChunkFile(folder: folder, byteCount: bytes, chunkBytes: chunkBytes, isReadOnly: true)
            isWritable = Atomic(false)
            report?(.notWritable(error.errno))
        }
    }

    var takesMore: Bool { isWritable.load(ordering: .relaxed) }

    /// Reads a chunk.
    ///
    /// - Returns: `nil` if it is not there, or not as it was written.
    func read(_ label: ChunkLabel, into room: UnsafeMutableRawBufferPointer) -> LoadOutcome? {
        do throws(UserfaultError) {
            switch unsafe try file?.read(label, into: room) {
            case .data: return .data
            case .zeros: return .zeros
            case .damaged: counters.damaged.add(1, ordering: .relaxed)
            case .nothing, nil: break
            }
        } catch {
            if !hasFailedToRead.exchange(true, ordering: .relaxed) { report?(.notReadable(error.errno)) }
        }
        return nil
    }

    /// Keeps a chunk; `nil` for zeros.
    func write(_ label: ChunkLabel, _ content: UnsafeRawBufferPointer?) {
        guard takesMore else { return }
        do throws(UserfaultError) {
            if unsafe try file?.write(label, content) == true { counters.writes.add(1, ordering: .relaxed) }
        } catch {
            if isWritable.exchange(false, ordering: .relaxed) { report?(.notWritable(error.errno)) }
        }
    }
}

/// What is counted, by any thread.
final class CacheCounters: Sendable {
    let memoryHits = Atomic<Int>(0)
    let diskHits = Atomic<Int>(0)
    let loads = Atomic<Int>(0)
    let passedOn = Atomic<Int>(0)
    let writes = Atomic<Int>(0)
    let damaged = Atomic<Int>(0)

    func countPassedOn() { passedOn.add(1, ordering: .relaxed) }

    var snapshot: ChunkCache.Statistics {
        ChunkCache.Statistics(
            memoryHits: memoryHits.load(ordering: .relaxed), diskHits: diskHits.load(ordering: .relaxed),
            loads: loads.load(ordering: .relaxed), passedOn: passedOn.load(ordering: .relaxed),
            writes: writes.load(ordering: .relaxed), damaged: damaged.load(ordering: .relaxed))
    }
}
