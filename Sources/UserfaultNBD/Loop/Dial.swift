#if NBD
internal import CNBD
internal import Synchronization
internal import UserfaultFD

/// The beginning of a connection, on a thread of its own: libnbd waits there until the server's name is looked up.
///
/// With a resolver that does not answer that is ten seconds and more, in which the source's other connections go on.
final class Dial: Sendable {
    /// A handle that somebody takes, or that is closed.
    @safe
    final class Handle: @unchecked Sendable {
        private var pointer: OpaquePointer?

        fileprivate init(_ pointer: OpaquePointer) {
            unsafe self.pointer = pointer
        }

        deinit { unsafe nbd_close(pointer) }

        @unsafe func take() -> OpaquePointer? { unsafe pointer.take() }
    }

    private let result = Mutex<Result<Handle, NBDError>?>(nil)

    /// Starts the thread, which ends by itself.
    ///
    /// - Parameter wake: Called when there is a result.
    static func start(
        _ uri: String, _ configuration: NBDConfiguration, _ wake: @escaping @Sendable () -> Void
    ) throws(NBDError) -> Dial {
        let dial = Dial()
        do throws(UserfaultError) {
            try NativeThread.detached("uffd-nbd-dial") {
                let result = Result { () throws(NBDError) in try begin(uri, configuration) }
                dial.result.withLock { $0 = result }
                wake()
            }
        } catch {
            throw NBDError(.prepare, errno: error.errno, message: "no thread")
        }
        return dial
    }

    /// What came of it, once.
    func take() -> Result<Handle, NBDError>? { result.withLock { $0.take() } }

    private static func begin(_ uri: String, _ configuration: NBDConfiguration) throws(NBDError) -> Handle {
        try Trust(configuration, uri).check()
        guard let new = unsafe nbd_create() else { throw NBDError.last(.prepare) }
        let owner = unsafe Handle(new)
        var answers: [CInt] = []
        // Nothing is taken for content that has not come, so that it need not be zeros.
        unsafe answers.append(nbd_set_pread_initialize(new, false))
        unsafe answers.append(nbd_set_uri_allow_local_file(new, configuration.allowsLocalFiles))
        let tls = configuration.tls
        unsafe answers.append(nbd_set_tls_verify_peer(new, tls.verifiesServer))
        if let folder = tls.certificates { unsafe answers.append(nbd_set_tls_certificates(new, folder)) }
        if let file = tls.preSharedKeys { unsafe answers.append(nbd_set_tls_psk_file(new, file)) }
        if let name = tls.username { unsafe answers.append(nbd_set_tls_username(new, name)) }
        if configuration.usesExtents {
            unsafe answers.append(nbd_add_meta_context(new, LIBNBD_CONTEXT_BASE_ALLOCATION))
        }
        guard !answers.contains(-1) else { throw NBDError.last(.configuration) }
        guard unsafe nbd_aio_connect_uri(new, uri) != -1 else { throw NBDError.last(.connect) }
        return owner
    }
}
#endif
