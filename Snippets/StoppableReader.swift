import Foundation
import UserfaultFD

/// Serves faults on a thread of its own, until it is told to stop.
final class Reader: Sendable {
    private let userfaultfd: UserfaultFD
    private let stop: EventFD

    init(_ userfaultfd: consuming UserfaultFD) throws {
        self.userfaultfd = userfaultfd
        stop = try EventFD()
    }

    /// Returns when another thread calls ``finish()``.
    func run() throws -> Int {
        var batch = EventBatch()
        var served = 0
        while try userfaultfd.poll(stop: stop) == .messages {
            try userfaultfd.read(into: &batch)
            while let fault = batch.nextPageFault() {
                try userfaultfd.zeropage(fault.page(size: .base))
                served += 1
            }
        }
        return served
    }

    func finish() { stop.signal() }
}

func stopAReader() throws -> Int {
    let memory = try Mapping(anonymous: 4 * PageSize.base.bytes)
    let userfaultfd = try UserfaultFD()
    try userfaultfd.register(memory.range, modes: .missing)
    let reader = try Reader(userfaultfd)

    // The thread that touches ends by itself; then the reader is stopped.
    let range = memory.range
    Thread.detachNewThread {
        var sum = 0
        for page in 0..<4 { sum += Int(UnsafePointer<UInt8>(bitPattern: range.start)![page * PageSize.base.bytes]) }
        print("the pages hold", sum)
        reader.finish()
    }
    // The memory is unmapped at its last use.
    defer { extendLifetime(memory) }
    return try reader.run()
}

print("the reader served \(try stopAReader()) faults and stopped")
