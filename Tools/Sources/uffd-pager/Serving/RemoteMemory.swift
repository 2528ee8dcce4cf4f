#if NBD
import Dispatch
import Logging
import Synchronization
import UserfaultNBD
import UserfaultPager

/// The export of an NBD server, for all machines of a socket.
///
/// The server may come later: a successor has machines whose pages wait for it. It is connected to in the background then, again
/// and again, and each attempt that fails is one for each page that has waited for it, as when a server goes later.
final class RemoteMemory: AsynchronousPageSource {
    /// How to get at it.
    struct Origin: Sendable {
        let uri: String
        let tls: TLSOptions
        /// Which version of the export it is, if that was said.
        let revision: String?
        /// Keeps what the server has sent.
        let cache: MemoryCache?
        /// What its pages should be.
        let checksums: ChecksumFile?
        let logger: Logger
    }

    /// What there is as soon as the server is there.
    private struct Image: Sendable {
        let byteCount: Int
        let hand: @Sendable (consuming PageRequest) -> Void
    }

    private struct State {
        var image: Image?
        /// Requests that wait for the next attempt.
        var waiting: [WaitingRequest] = []
        /// Are told how many bytes there are.
        var observers: [@Sendable (Int) -> Void] = []
        var attempts: Task<Void, Never>?
    }

    /// The name of the export, and which version of it.
    let export: String
    private let state = Mutex(State())
    private let cache: ChunkCache?

    /// As in the library.
    private static var backOff: Duration { NBDConfiguration().backOff }
    private static var maximumBackOff: Duration { NBDConfiguration().maximumBackOff }

    /// - Parameter waits: Whether the server may come later.
    /// - Throws: ``Failure`` with ``ExitCode/unreadable`` if the server is not there, and may not come later.
    init(_ origin: Origin, waits: Bool) throws {
        cache = origin.cache?.chunks
        let name = Self.export(in: origin.uri)
        // Also without the cache: a successor that cannot open it serves the same memory.
        export = origin.revision.map { "\(name), revision \($0)" } ?? String(name)
        let log = NBDLog(origin.logger, wasThere: waits)
        if waits {
            begin(origin, log)
        } else {
            do {
                let image = try Self.open(origin, log)
                state.withLock { $0.image = image }
            } catch let error as NBDError {
                throw Failure(.unreadable, "\(origin.uri) cannot be read: \(error)\(error.remedy)")
            } catch let error as PagerError {
                throw Failure(.unreadable, "\(origin.uri) cannot be read: \(error)")
            }
        }
    }

    deinit { state.withLock { $0.attempts?.cancel() } }

    /// The name of the export in an `nbd` URI: the server's address may be another one tomorrow.
    ///
    /// An export without a name is what this server has, and no other's.
    private static func export(in uri: String) -> Substring {
        guard let scheme = uri.firstRange(of: "://") else { return "" }
        let rest = uri[scheme.upperBound...]
        let name = rest.prefix { $0 != "?" && $0 != "#" }.drop { $0 != "/" }.dropFirst()
        return name.isEmpty ? rest : name
    }

    // MARK: Opening

    private static func open(_ origin: Origin, _ log: NBDLog) throws -> Image {
        let source = try NBDSource(origin.uri, configuration: log.configuration(origin.tls.configuration))
        let byteCount = source.export.byteCount
        guard byteCount > 0 else {
            throw Failure(.unreadable, "\(origin.uri) is empty: 0 bytes, and the memory of a machine is needed")
        }
        guard let checksums = origin.checksums else {
            return try image(AsynchronousSource(source), byteCount, origin)
        }
        try checksums.check(byteCount, of: origin.uri)
        let logger = origin.logger
        let told = Mutex<Set<Int>>([])
        let verified = try VerifiedSource(AsynchronousSource(source), checksums.content) { offset in
            // A page that is damaged is tried again and again.
            let isNew = told.withLock { told in
                if told.count >= 1024 { told = [] }
                return told.insert(offset).inserted
            }
            logger.log(
                level: isNew ? .error : .debug, "the memory is damaged: a page is not the one of its checksum",
                metadata: ["offset": "\(offset)", "checksums": "\(checksums.path)"])
        }
        return try image(verified, byteCount, origin)
    }

    private static func image<Source: PageSource & ~Copyable>(
        _ source: consuming Source, _ byteCount: Int, _ origin: Origin
    ) throws -> Image {
        guard let cache = origin.cache else {
            let asked = Asked(source)
            return Image(byteCount: byteCount) { asked.source.hand($0) }
        }
        // Pages that were kept before there were checksums are not those.
        let revision = origin.checksums.map { "\(cache.revision), checksums \($0.digest)" } ?? cache.revision
        let identity = try ImageIdentity(name: origin.uri, byteCount: byteCount, revision: revision)
        let cached = try CachedSource(source, of: identity, in: cache.chunks)
        return Image(byteCount: byteCount) { cached.hand($0) }
    }

    /// Begins to connect, until the server is there or nobody wants it any more.
    private func begin(_ origin: Origin, _ log: NBDLog) {
        let attempts = Task { [weak self] in
            var pause = Self.backOff
            while !Task.isCancelled {
                do {
                    let image = try await onOwnThread { () throws in try Self.open(origin, log) }
                    return self?.show(image) ?? ()
                } catch {
                    log.noteNotOpened("\(error)\((error as? NBDError)?.remedy ?? "")")
                    self?.failWaiting()
                }
                try? await Task.sleep(for: pause)
                pause = min(pause * 2, Self.maximumBackOff)
            }
        }
        state.withLock { $0.attempts = attempts }
    }

    private func show(_ image: Image) {
        let (waiting, observers) = state.withLock { state in
            state.image = image
            defer { (state.waiting, state.observers) = ([], []) }
            return (state.waiting, state.observers)
        }
        for observer in observers { observer(image.byteCount) }
        for request in waiting { hand(request, to: image) }
    }

    private func failWaiting() {
        let waiting = state.withLock { state in
            defer { state.waiting = [] }
            return state.waiting
        }
        for request in waiting { request.take()?.fail() }
    }

    // MARK: Asking

    /// How many bytes the export has; waits for a server that may come later.
    ///
    /// - Returns: `nil` if it has not come in time.
    func byteCount(within limit: Duration) -> Int? {
        let arrival = DispatchSemaphore(value: 0)
        let known = state.withLock { state in
            if state.image == nil { state.observers.append { _ in arrival.signal() } }
            return state.image?.byteCount
        }
        if let known { return known }
        _ = arrival.wait(timeout: .now() + .milliseconds(Int(limit / .milliseconds(1))))
        return state.withLock { $0.image?.byteCount }
    }

    /// Tells how many bytes the export has, as soon as that is known.
    func whenOpened(_ observer: @escaping @Sendable (Int) -> Void) {
        let known = state.withLock { state in
            if state.image == nil { state.observers.append(observer) }
            return state.image?.byteCount
        }
        if let known { observer(known) }
    }

    func load(_ request: consuming PageRequest) { load(request, expecting: nil) }

    /// Takes a request.
    ///
    /// - Parameter byteCount: How many bytes the export must have; of another one no page is loaded.
    fileprivate func load(_ request: consuming PageRequest, expecting byteCount: Int?) {
        let letter = WaitingRequest(request, expecting: byteCount)
        let image = state.withLock { state in
            if state.image == nil { state.waiting.append(letter) }
            return state.image
        }
        if let image { hand(letter, to: image) }
    }

    private func hand(_ letter: WaitingRequest, to image: Image) {
        guard let request = letter.take() else { return }
        guard letter.byteCount == nil || letter.byteCount == image.byteCount else { return request.fail() }
        image.hand(request)
    }

    /// As that of an NBD source, and of a cache.
    var isReentrant: Bool { cache == nil }

    /// Waits until what was loaded is kept.
    func flush(within limit: Duration) { cache?.flush(within: limit) }
}

/// The export that a machine had whose server has died: it must have as many bytes.
final class KeptExport: AsynchronousPageSource {
    private let memory: RemoteMemory
    let byteCount: Int

    /// - Parameter identity: What ``RemoteMemory/identity(_:)`` was.
    /// - Returns: `nil` for another export.
    init?(_ memory: RemoteMemory, identity: String) {
        guard let space = identity.firstIndex(of: " "), let byteCount = Int(identity[..<space]),
            identity == memory.identity(byteCount)
        else { return nil }
        self.memory = memory
        self.byteCount = byteCount
    }

    func load(_ request: consuming PageRequest) { memory.load(request, expecting: byteCount) }
    var isReentrant: Bool { memory.isReentrant }
}

extension RemoteMemory {
    /// Differs if the content does, as far as the server tells.
    func identity(_ byteCount: Int) -> String { "\(byteCount) bytes of \(export)" }
}

/// A request until it is handed on, by one thread.
private final class WaitingRequest: Sendable {
    let byteCount: Int?
    private let request: Mutex<PageRequest?>

    init(_ request: consuming PageRequest, expecting byteCount: Int?) {
        self.byteCount = byteCount
        self.request = Mutex(request)
    }

    /// Gives it away, once.
    func take() -> PageRequest? {
        request.withLock { (request: inout sending PageRequest?) -> sending PageRequest? in request.take() }
    }
}

/// A source that closures share.
private final class Asked<Source: PageSource & ~Copyable>: Sendable {
    let source: Source

    init(_ source: consuming Source) { self.source = source }
}

extension NBDError {
    /// What to do: libnbd says what it has asked, and what was answered.
    fileprivate var remedy: String { Self.remedies.first { message.contains($0.key) }.map { "; \($0.value)" } ?? "" }

    private static let remedies: KeyValuePairs = [
        "certificate verification":
            "the server's certificate must be of the authority in ca-cert.pem, for the name that the address has, and not have "
            + "expired: 'certtool --certificate-info --infile server-cert.pem' shows all three",
        "requires TLS encryption": "write nbds in place of nbd, and say whom to trust",
        "refused TLS": "write nbd in place of nbds, or give the server certificates or keys",
        "which authority or which keys": "--tls-certificates FOLDER or --tls-psk-file FILE does",
        "allow_local_file": "name it by --tls-certificates or --tls-psk-file, and not in the URI",
        "is read in blocks of":
            "give the server an image whose size is a multiple of that, or let it add zeros: nbdkit does with --filter=truncate "
            + "after its other filters, and round-up=64K",
        "no export named": "'nbdinfo --list' shows the exports that there are",
        "Connection refused": "start the NBD server, or correct the URI",
        "connect: No such file": "start the NBD server, or correct the URI",
    ]
}
#endif
