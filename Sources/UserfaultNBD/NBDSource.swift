#if NBD
internal import Synchronization
internal import UserfaultFD
public import UserfaultPager

/// The content of an NBD export: a file, an object of an HTTP or S3 server, a qcow2 image, a Ceph volume.
///
/// ```swift
/// import UserfaultFD
/// import UserfaultNBD
/// import UserfaultPager
///
/// let image = try NBDSource("nbd+unix:///?socket=/run/image.sock")
/// let pager = try Pager(UserfaultFD(), source: AsynchronousSource(image))
/// ```
///
/// One thread serves any number of pagers that share the source. It keeps many requests outstanding, on several
/// connections if the server allows that, sends what a thread waits for first, and reads neighbouring pages together.
/// Holes are not read: their pages are filled as zeros. After the export's end there are zeros.
///
/// A page whose bytes did not arrive is never shown. If the server refuses a read, or its connection is lost, the request
/// fails, and the region's `FailurePolicy` decides how often it is repeated. The source connects again by itself. Requests
/// wait for the next attempt, and fail if it fails: an attempt of the policy is an attempt to connect, or two with a
/// `ChunkCache`, which asks for the chunk first and then for the page.
public final class NBDSource: AsynchronousPageSource, Sendable {
    private let mailbox: Mailbox
    private let uri: String

    /// What the server offers.
    public let export: NBDExport

    /// Connects to a server.
    ///
    /// - Parameters:
    ///   - uri: The address: `nbd://HOST[:PORT]/[EXPORT]`, `nbds://` for TLS, `nbd+unix:///[EXPORT]?socket=PATH`.
    ///   - configuration: How to connect, and how much to ask for at once.
    /// - Throws: ``NBDError``: the server cannot be reached, refuses, or is not the one that its certificate should name; the
    ///   export ends inside a block of the server, so that its end cannot be read.
    public init(_ uri: String, configuration: NBDConfiguration = NBDConfiguration()) throws(NBDError) {
        try configuration.check()
        let mailbox = try Mailbox()
        try Loop.start(uri, configuration, mailbox)
        do throws(NBDError) {
            // The thread has a deadline of its own, which ends first.
            export = try mailbox.opening.wait(until: Deadline(after: configuration.connectTimeout + .seconds(5)))
        } catch {
            mailbox.close()
            throw error
        }
        self.mailbox = mailbox
        self.uri = uri
    }

    deinit { mailbox.close() }

    /// Takes a request, see `AsynchronousPageSource`.
    public func load(_ request: consuming PageRequest) { mailbox.put(request) }

    /// Requests are completed without a lock: see `PageSource.isReentrant`.
    public var isReentrant: Bool { true }

    /// Where a part of the export has data, in bytes from its start: everything else reads as zeros.
    ///
    /// Waits for the server.
    ///
    /// - Parameters:
    ///   - range: The part, in bytes.
    ///   - limit: How long to wait; `nil` waits without a limit.
    /// - Throws: ``NBDError``: the server cannot be reached, or does not answer in time.
    public func dataRanges(in range: Range<Int>, within limit: Duration? = .seconds(30)) throws(NBDError) -> [Range<
        Int
    >] {
        let question = Question(range)
        mailbox.put(question)
        do throws(NBDError) {
            return try question.answer.wait(until: Deadline(after: limit))
        } catch {
            question.isAbandoned.store(true, ordering: .relaxed)
            throw error
        }
    }

    /// The export as a `ChunkCache` knows it.
    ///
    /// - Parameters:
    ///   - name: What it is called wherever its chunks are shared; `nil` for the address.
    ///   - revision: Which version of it: NBD does not tell.
    /// - Throws: `PagerError.configuration` if the names are too long.
    public func identity(name: String? = nil, revision: String) throws(PagerError) -> ImageIdentity {
        try ImageIdentity(name: name ?? uri, byteCount: export.byteCount, revision: revision)
    }

    /// What was done so far.
    public var statistics: NBDStatistics { mailbox.counters.snapshot }
}
#else
/// Needs the trait `NBD` of this package.
@available(*, unavailable, message: "enable the trait NBD of swift-userfaultfd in your package's manifest")
public final class NBDSource {}
#endif
