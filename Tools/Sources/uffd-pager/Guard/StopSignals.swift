import Dispatch
import Glibc

/// The signals that tell a server to end, from the first use on.
///
/// A signal that was blocked and has come before is among them, if this is used first before a task is suspended: the main
/// thread then takes all signals, and one without a handler ends the process.
final class StopSignals: Sendable {
    static let shared = StopSignals()

    /// One element for each that comes; one task may wait for them.
    let stream: AsyncStream<Void>
    nonisolated(unsafe) private let sources: [any DispatchSourceSignal]

    private init() {
        let (stream, continuation) = AsyncStream.makeStream(of: Void.self)
        let queue = DispatchQueue(label: "stop-signals")
        let registrations = DispatchGroup()
        sources = [SIGTERM, SIGINT, SIGHUP].map { number in
            let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
            registrations.enter()
            source.setRegistrationHandler { registrations.leave() }
            source.setEventHandler { continuation.yield() }
            source.resume()
            return source
        }
        self.stream = stream
        registrations.wait()
    }
}
