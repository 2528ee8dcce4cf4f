import Glibc
import Synchronization
import Testing
import UserfaultFD
import UserfaultPager

@testable import UserfaultHandoff

/// A server at a path of its own, on a thread of its own, which serves pages that hold their number.
final class Ground: Sendable {
    let path: String
    let listening: HandoffServer.Listening
    let server: HandoffServer
    private let thread: NativeThread
    private let events = Mutex(Events())
    private let news: EventFD

    struct Events {
        var reports: [HandoffError] = []
        var pagers: [Pager<ClosureSource<Never>>] = []
        var errors: [HandoffError] = []
    }

    init(_ format: HandoffFormat, limits: HandoffLimits = HandoffLimits(), peers: PeerPolicy = .everybody) throws {
        path = "/tmp/uffd-handoff-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        news = try EventFD()
        let reports = Box<(@Sendable (HandoffServer.Report) -> Void)?>(nil)
        server = try HandoffServer(limits: limits) { report in reports.value.withLock { $0 }?(report) }
        let handlers = Box<(@Sendable (consuming HandedMemory) -> Void)?>(nil)
        // The client is this process.
        listening = try server.listen(
            HandoffListener(path: path), for: format, from: peers, stranded: .left
        ) { memory in
            handlers.value.withLock { $0 }?(memory)
        }
        let running = server
        thread = try NativeThread("server") { try? running.run() }
        reports.value.withLock { $0 = { [weak self] report in self?.note { $0.reports.append(report.error) } } }
        handlers.value.withLock { $0 = { [weak self] memory in self?.serve(memory) } }
    }

    deinit {
        server.stop()
        thread.join(until: Deadline(after: .seconds(20)))
        server.remove(listening)
        for pager in events.withLock({ $0.pagers }) { try? pager.stop(.poison) }
    }

    private func note(_ change: (inout Events) -> Void) {
        events.withLock { change(&$0) }
        news.signal()
    }

    private func serve(_ memory: consuming HandedMemory) {
        do throws(HandoffError) {
            let served = try memory.serve(from: Ground.numbers)
            note { $0.pagers.append(served.pager) }
        } catch {
            note { $0.errors.append(error) }
        }
    }

    /// Each page holds its number in the source, plus one.
    private static var numbers: ClosureSource<Never> {
        ClosureSource { offset, pages in
            let page = PageSize.base.bytes
            for index in 0..<pages.freeCapacity / page {
                pages.append(
                    repeating: UInt8(truncatingIfNeeded: offset / page + index + 1), count: page, as: UInt8.self)
            }
            return .data
        }
    }

    /// Waits until something has happened.
    func wait(until condition: (Events) -> Bool) throws -> Events {
        let deadline = Deadline(after: .seconds(20))
        while true {
            let now = events.withLock { $0 }
            if condition(now) { return now }
            try #require(!deadline.hasPassed, "nothing came: \(now)")
            _ = try poll(news.descriptor.rawValue, until: deadline)
            news.clear()
        }
    }
}

/// Something that threads share.
final class Box<Value: Sendable>: Sendable {
    let value: Mutex<Value>

    init(_ value: Value) { self.value = Mutex(value) }
}

/// Memory that is registered and touched here.
struct ClientMemory: ~Copyable {
    let mapping: Mapping
    let uffd: UserfaultFD

    init(pages: Int) throws {
        let mapping = try Mapping(anonymous: pages * PageSize.base.bytes)
        let uffd = try UserfaultFD(features: [.eventRemove], options: .init(faults: .userMode))
        try uffd.register(mapping.range, modes: .missing)
        self.mapping = mapping
        self.uffd = uffd
    }

    func region(offset: Int = 0) throws -> HandedRegion {
        try HandedRegion(
            address: UInt64(mapping.range.start), byteCount: UInt64(mapping.range.count), offset: UInt64(offset),
            pageBytes: UInt64(PageSize.base.bytes))
    }

    /// The first byte of each page, read on a thread of its own.
    func firstBytes() throws -> [UInt8]? {
        let range = mapping.range
        let result = Box<[UInt8]?>(nil)
        let thread = try NativeThread("toucher") {
            let bytes = stride(from: 0, to: range.count, by: PageSize.base.bytes).map {
                UnsafeRawPointer(bitPattern: range.start + UInt($0))!.load(as: UInt8.self)
            }
            result.value.withLock { $0 = bytes }
        }
        try #require(thread.join(until: Deadline(after: .seconds(20))), "the memory is not served")
        return result.value.withLock { $0 }
    }
}

/// Removes a file of a test.
func unlinkFile(_ path: String) -> Bool { unlink(path) == 0 }
