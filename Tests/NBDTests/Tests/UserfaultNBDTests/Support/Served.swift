import Foundation
import Synchronization
import UserfaultFD
import UserfaultNBD
import UserfaultPager

/// Memory that is served from a server.
typealias Served = ServedMemory<AsynchronousSource<NBDSource>>

/// Memory that is served from a source.
final class ServedMemory<Source: PageSource & ~Copyable>: Sendable {
    static var page: Int { PageSize.base.bytes }

    let pager: Pager<Source>
    let region: Region
    let range: AddressRange
    let reports: Reports<PagerReport>
    private let mapping: Mapping

    init(
        of source: consuming Source, bytes: Int, offset: Int = 0, readAhead: RegionOptions.ReadAhead = .none,
        failure: FailurePolicy = FailurePolicy(), faults: UserfaultFD.OpenOptions.Faults = .userMode,
        configuration: PagerConfiguration = PagerConfiguration()
    ) throws {
        mapping = try Mapping(anonymous: bytes, options: .noReserve)
        range = mapping.range
        reports = Reports()
        var configuration = configuration
        configuration.report = { [reports] in reports.add($0) }
        pager = try Pager(
            UserfaultFD(options: .init(faults: faults)), source: source, configuration: configuration)
        region = try pager.add(range, offset: offset, options: RegionOptions(readAhead: readAhead, failure: failure))
        try pager.start()
    }

    /// Loads a word, on the calling thread.
    func word(_ offset: Int) -> UInt64 {
        UnsafeRawPointer(bitPattern: range.start + UInt(offset))!.load(as: UInt64.self)
    }

    /// Whether a page holds what the server's pattern has there.
    func isPattern(_ offset: Int, at place: Int? = nil) -> Bool {
        let place = place ?? offset
        return word(offset) == UInt64(place).bigEndian
            && word(offset + Self.page - 8) == UInt64(place + Self.page - 8).bigEndian
    }

    /// Has the kernel read a page: `nil` if it is lost.
    func readByKernel(_ offset: Int) -> UInt64? {
        var ends: [CInt] = [0, 0]
        guard pipe(&ends) == 0 else { return nil }
        defer { for end in ends { close(end) } }
        guard write(ends[1], UnsafeRawPointer(bitPattern: range.start + UInt(offset)), 8) == 8 else { return nil }
        var word: UInt64 = 0
        return read(ends[0], &word, 8) == 8 ? word : nil
    }
}

extension Served {
    convenience init(
        _ source: NBDSource, bytes: Int, offset: Int = 0, readAhead: RegionOptions.ReadAhead = .none,
        failure: FailurePolicy = FailurePolicy(), faults: UserfaultFD.OpenOptions.Faults = .userMode,
        configuration: PagerConfiguration = PagerConfiguration()
    ) throws {
        try self.init(
            of: AsynchronousSource(source), bytes: bytes, offset: offset, readAhead: readAhead, failure: failure,
            faults: faults, configuration: configuration)
    }
}

/// What was reported, from whatever thread.
final class Reports<Report: Sendable>: Sendable {
    private let list = Mutex<[Report]>([])

    func add(_ report: Report) { list.withLock { $0.append(report) } }

    var all: [Report] { list.withLock { $0 } }

    func count(_ isWanted: (Report) -> Bool) -> Int { all.count(where: isWanted) }
}

/// A thread that may wait for pages.
final class Toucher: @unchecked Sendable {
    private let done = DispatchSemaphore(value: 0)

    init(_ body: @escaping @Sendable () -> Void) {
        Thread.detachNewThread { [done] in
            body()
            done.signal()
        }
    }

    /// Waits for its end: `false` if that takes too long.
    func join(seconds: Int = 30) -> Bool { done.wait(timeout: .now() + .seconds(seconds)) == .success }

    /// Whether every one of these is so, on several threads.
    static func all<Items: Collection & Sendable>(
        _ items: Items, threads: Int = 1, seconds: Int = 60, _ isSo: @escaping @Sendable (Items.Element) -> Bool
    ) -> Bool where Items.Element: Sendable {
        let bad = Counter()
        let list = Array(items)
        let touchers = (0..<threads).map { thread in
            Toucher {
                for index in stride(from: thread, to: list.count, by: threads) where !isSo(list[index]) {
                    bad.value.add(1, ordering: .relaxed)
                }
            }
        }
        return touchers.allSatisfy { $0.join(seconds: seconds) } && bad.value.load(ordering: .relaxed) == 0
    }
}

final class Counter: Sendable {
    let value = Atomic<Int>(0)
}
