import Synchronization
import SystemPackage
import UserfaultFD

/// The monitor of one area that is dropped, moved and forked while it is served: events first, then faults.
final class EventMonitor: Sendable {
    private let area: Area
    private let crew = Crew()
    private let served = Atomic<Int>(0)

    init(_ area: Area, features: UserfaultFD.Features) throws {
        self.area = area
        let parent = Handler.Descriptor(try UserfaultFD(features: features))
        try parent.uffd.register(area.range, modes: .missing)
        let contents = try area.source(0..<area.pageCount)
        // Freed with the process: the thread uses it as long as it runs.
        let source = contents.release().start
        try crew.add("monitor") { [self] in try serve(parent, source) }
    }

    /// Ends the serving; answers how many pages were filled.
    func stop() throws -> Int {
        crew.stop()
        try crew.join("the monitor stops")
        return served.load(ordering: .relaxed)
    }

    /// A process that is served: the parent, or a child that a fork made.
    private struct Served {
        let descriptor: Handler.Descriptor
        /// Where the area is in this process; a child may outlive a move of its parent's.
        var base: UInt
        /// Faults that could not be resolved while an event was on its way.
        var waiting: [PageFault] = []
    }

    private func serve(_ parent: Handler.Descriptor, _ source: UInt) throws {
        var processes = [Served(descriptor: parent, base: area.range.start)]
        var batch = EventBatch(capacity: 16)
        while !crew.shouldStop {
            _ = try parent.uffd.poll(timeout: .milliseconds(processes.count > 1 ? 0 : 5))
            for index in processes.indices.reversed() {
                let count = try processes[index].descriptor.uffd.read(into: &batch)
                while let event = batch.next() {
                    switch consume event {
                    case .pagefault(let fault): processes[index].waiting.append(fault)
                    case .remap(_, let to, _): processes[index].base = to
                    case .fork(let child):
                        processes.append(Served(descriptor: Handler.Descriptor(child), base: processes[index].base))
                    case .remove: break
                    case .unmap: break
                    case .unknown(let number):
                        throw CaseFailure(expected: "an event that is known", seen: "event \(number)")
                    }
                }
                // With more to read there may be an event among it, and events come before the faults.
                guard count < batch.capacity else { continue }
                if try !resolve(&processes[index], source), index > 0 { processes.remove(at: index) }
            }
        }
    }

    /// Fills what waits.
    ///
    /// Answers whether the process is still there.
    private func resolve(_ process: inout Served, _ source: UInt) throws -> Bool {
        let uffd = process.descriptor
        var left: [PageFault] = []
        for fault in process.waiting {
            let page = fault.page(size: area.pageSize)
            let offset = page.start &- process.base
            // A fault from before a move is about memory that is no longer there.
            guard offset < UInt(area.range.count) else { continue }
            let answer = uffd.uffd.raw(.copy, page, source: source + offset)
            switch answer {
            case .done(area.pageSize.bytes): served.add(1, ordering: .relaxed)
            case .failed(.fileExists): try uffd.uffd.wake(page)
            case .failed(.noSuchFileOrDirectory): break
            case .failed(.resourceTemporarilyUnavailable), .refused(.resourceTemporarilyUnavailable): left.append(fault)
            case .refused(.noSuchProcess): return false
            default: throw CaseFailure(expected: "COPY: done, EEXIST, ENOENT, EAGAIN or ESRCH", seen: "\(answer)")
            }
        }
        process.waiting = left
        // Arguments are looked at before the process is: a good address, where nothing is registered.
        let probe = AddressRange(start: source, count: area.pageSize.bytes)
        return process.descriptor.uffd.raw(.copy, probe, source: source) != .refused(.noSuchProcess)
    }
}
