import CBenchBaseline
import Dispatch
import Foundation
import Glibc
import Synchronization
import SystemPackage
import UserfaultFD

/// Handler threads of one kind that run while faults are made, in C or in Swift.
final class Handlers: Sendable {
    enum Language: String, Sendable { case c, swift }

    /// What one handler thread needs.
    private final class Work: Sendable {
        let uffd: UserfaultFD
        let language: Language
        let request: HandlerRequest
        let stop: Int32
        let stopped = Atomic<Bool>(false)
        let ready: DispatchSemaphore
        /// Becomes 1 when the thread is to stop, for C to look at.
        nonisolated(unsafe) let stoppedWord: UnsafeMutablePointer<UInt32>

        init(
            _ uffd: consuming UserfaultFD, _ language: Language, _ request: HandlerRequest, _ ready: DispatchSemaphore
        ) {
            self.uffd = uffd
            self.language = language
            self.request = request
            self.ready = ready
            stop = cbb_stop_create()
            stoppedWord = .allocate(capacity: 1)
            stoppedWord.initialize(to: 0)
        }

        deinit {
            close(stop)
            stoppedWord.deallocate()
        }

        func run() {
            Processor.pin(request.processor)
            ready.signal()
            switch language {
            case .c: runC()
            case .swift:
                do throws(UserfaultError) {
                    try TypedHandler.serve(uffd, request, stop: stop, stopped: stopped)
                } catch {
                    // Whoever waits for a page would wait for ever.
                    Watchdog.giveUp("a handler in Swift failed: \(error)")
                }
            }
        }

        private func runC() {
            var handler = cbb_handler(
                request, descriptor: uffd.withUnsafeDescriptor { $0.rawValue }, stop: stop, stopped: stoppedWord)
            let answer = cbb_serve(&handler)
            if answer < 0 { Watchdog.giveUp("a handler in C failed: errno \(-answer)") }
        }
    }

    private let works: [Work]
    private let running = DispatchGroup()
    private let bell: Mapping

    /// Registers the range and starts one thread for each request, all on one descriptor; returns when all of them run.
    init(_ language: Language, _ requests: [HandlerRequest], modes: UserfaultFD.RegisterModes) throws {
        let waiting = requests[0].waiting
        let uffd = try UserfaultFD(options: .init(nonBlocking: waiting != .block))
        try uffd.register(requests[0].range, modes: modes)
        bell = try Mapping(anonymous: requests.count * PageSize.base.bytes)
        try uffd.register(bell.range, modes: .missing)
        let ready = DispatchSemaphore(value: 0)
        var works: [Work] = []
        for request in requests { works.append(Work(try uffd.duplicate(), language, request, ready)) }
        self.works = works
        for work in works {
            running.enter()
            Thread.detachNewThread { [running] in
                work.run()
                running.leave()
            }
        }
        for _ in works { ready.wait() }
    }

    /// Write-protects a range.
    func protect(_ range: AddressRange) throws { try works[0].uffd.writeProtect(range, .protect) }

    /// Stops the threads.
    func stop() {
        for (index, work) in works.enumerated() {
            work.stopped.store(true, ordering: .releasing)
            work.stoppedWord.pointee = 1
            cbb_stop_signal(work.stop)
            if work.request.waiting == .block { cbb_touch(UInt64(bell.page(index).start), 1, 4096, nil, 0, nil) }
        }
        if running.wait(timeout: .now() + 10) != .success { Watchdog.giveUp("a handler did not stop") }
        // A thread that has left may hold its descriptor a moment longer: nobody else could register the memory so long.
        for range in [works[0].request.range, bell.range] { try? works[0].uffd.unregister(range) }
    }

    /// Runs work while handlers serve its faults.
    static func serving<Result>(
        _ language: Language, _ requests: [HandlerRequest], modes: UserfaultFD.RegisterModes = .missing,
        _ work: () throws -> Result
    ) throws -> Result {
        let handlers = try Handlers(language, requests, modes: modes)
        defer { handlers.stop() }
        return try work()
    }
}

extension cbb_handler {
    /// - Parameter stopped: Becomes 1 when the thread is to stop, for a handler that spins.
    init(_ request: HandlerRequest, descriptor: Int32, stop: Int32, stopped: UnsafePointer<UInt32>? = nil) {
        self.init(
            fd: descriptor, stop: stop, stopped: stopped, waiting: request.waiting.cValue,
            call: request.call.cValue, batch: UInt32(request.batch), base: UInt64(request.range.start),
            length: UInt64(request.range.count), source: UInt64(request.source),
            page_size: UInt64(request.pageSize.bytes), window: UInt64(request.window),
            spin_limit: request.spinLimit, faults: 0)
    }
}

extension HandlerRequest.Waiting {
    fileprivate var cValue: cbb_waiting {
        switch self {
        case .poll: cbb_wait_poll
        case .block: cbb_wait_block
        case .spin: cbb_wait_spin
        case .adaptive: cbb_wait_adaptive
        }
    }
}

extension HandlerRequest.Call {
    var cValue: cbb_call {
        switch self {
        case .copy: cbb_copy
        case .continue: cbb_continue
        case .zeropage: cbb_zeropage
        case .unprotect: cbb_writeprotect
        }
    }
}
