import CBenchBaseline
import Foundation
import SystemPackage
import UserfaultFD

/// A C handler of many clients: one thread that waits by epoll, with a descriptor for each.
final class ClientHandler: @unchecked Sendable {
    private let uffds: [Registered]
    private let requests: [HandlerRequest]
    private let stopped: Int32 = cbb_stop_create()
    private let ended = DispatchSemaphore(value: 0)

    /// Registers the range of each request with a descriptor of its own, and starts the thread.
    init(_ requests: [HandlerRequest]) throws {
        self.requests = requests
        uffds = try requests.map { request in
            let uffd = try UserfaultFD()
            try uffd.register(request.range, modes: .missing)
            return Registered(uffd)
        }
        let begun = DispatchSemaphore(value: 0)
        Thread.detachNewThread { [self] in
            Processor.pin(requests[0].processor)
            begun.signal()
            serve()
            ended.signal()
        }
        begun.wait()
    }

    deinit { try? FileDescriptor(rawValue: stopped).close() }

    private func serve() {
        var handlers = zip(uffds, requests).map { shared, request in
            cbb_handler(request, descriptor: shared.uffd.withUnsafeDescriptor { $0.rawValue }, stop: stopped)
        }
        let answer = cbb_serve_many(&handlers, handlers.count, stopped)
        if answer < 0 { Watchdog.giveUp("a handler in C failed: errno \(-answer)") }
    }

    func stop() {
        cbb_stop_signal(stopped)
        if ended.wait(timeout: .now() + 10) != .success { Watchdog.giveUp("a handler did not stop") }
        for (shared, request) in zip(uffds, requests) { try? shared.uffd.unregister(request.range) }
    }
}
