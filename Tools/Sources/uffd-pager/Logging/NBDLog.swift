#if NBD
import Logging
import Synchronization
import UserfaultNBD

/// Logs what happens to the server that a machine's memory comes from: what changes, and not each connection and request.
final class NBDLog: Sendable {
    private struct State {
        /// Not said of a server that has never been there: then nothing begins.
        var isGone = true
        var wasThere = false
        var hasFailed = false
        /// Why it was gone since it was there last.
        var said: Set<String> = []
    }

    private let logger: Logger
    private let state: Mutex<State>

    /// - Parameter wasThere: Whether the server was there for somebody else, who has died.
    init(_ logger: Logger, wasThere: Bool) {
        self.logger = logger
        state = Mutex(State(isGone: !wasThere, wasThere: wasThere))
    }

    /// The default one, whose source tells this log.
    func configuration(_ tls: NBDConfiguration.TLS) -> NBDConfiguration {
        NBDConfiguration(tls: tls) { [self] report in log(report) }
    }

    private func log(_ report: NBDReport) {
        switch report {
        case .connected(let number):
            let wasGone = state.withLock { state in
                defer { (state.isGone, state.wasThere, state.said) = (false, true, []) }
                return state.isGone && state.wasThere
            }
            log(wasGone ? .notice : .debug, "connected to the NBD server", ["connection": "\(number)"])
        case .disconnected(let number, let error), .notConnected(let number, let error):
            noteGone(error.description, ["connection": "\(number)"])
        case .readFailed(let range, let error):
            let hadFailed = state.withLock { state in
                defer { state.hasFailed = true }
                return state.hasFailed
            }
            log(
                hadFailed ? .debug : .error, "the NBD server cannot read its export; this is logged once",
                ["offset": "\(range.lowerBound)", "error": "\(error)"])
        case .extentsFailed(let range, let error):
            log(
                .debug, "the NBD server does not tell where its holes are",
                ["offset": "\(range.lowerBound)", "error": "\(error)"])
        }
    }

    /// The server is not there yet, and is asked again.
    func noteNotOpened(_ error: String) { noteGone(error) }

    private func noteGone(_ error: String, _ metadata: Logger.Metadata = [:]) {
        // Each reason once: a server that comes back as another is refused for a second one.
        let isSaid = state.withLock { state in
            defer { state.isGone = true }
            let isNew = state.said.count < 8 && state.said.insert(error).inserted
            return state.isGone && !(isNew && state.wasThere)
        }
        log(
            isSaid ? .debug : .error, "the NBD server is gone: pages wait, or fail, until it is there again",
            metadata.merging(["error": "\(error)"]) { $1 })
    }

    private func log(_ level: Logger.Level, _ message: Logger.Message, _ metadata: Logger.Metadata) {
        logger.log(level: level, message, metadata: metadata)
    }
}
#endif
