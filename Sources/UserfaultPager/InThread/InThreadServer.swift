internal import Synchronization
internal import SystemPackage
internal import UserfaultFD

// Runs in signal handlers of the threads that touch served memory.

/// Why a thread faulted, as far as that is known.
///
/// Not within the generic type: its metadata would be made by the first fault, which takes memory.
private enum Look {
    case nobodys, missing, protected
    /// Not every kernel tells poison from a page that is not there.
    case lost
}

/// Serves the faults of one pager in the threads that have them.
///
/// What a handler of messages does, without messages: the kernel says where a thread faulted and not why.
final class InThreadServer<Source: PageSource & ~Copyable>: FaultServer, @unchecked Sendable {
    private let core: PagerCore<Source>
    private let memory: ServedMemory
    private let benches: BenchPool

    /// How many faults are served at the same time: a thread that comes when so many are being served waits.
    private static var capacity: Int { 64 }

    init(_ core: PagerCore<Source>) throws(PagerError) {
        self.core = core
        memory = core.memories[0]
        benches = BenchPool(capacity: Self.capacity)
        for _ in 0..<Self.capacity {
            let record = core.makeRecord()
            do throws(UserfaultError) {
                benches.add(try Workbench(record))
            } catch {
                core.retire(record)
                throw .kernel(error)
            }
        }
    }

    override func serve(_ address: UInt) -> FaultSignal.Answer {
        let now = MonotonicInstant.now.nanoseconds
        let flags: PageFault.Flags
        switch look(at: address) {
        case .nobodys: return serveStray(address)
        case .lost: return .refused
        case .missing: flags = []
        case .protected: flags = .writeProtect
        }
        let answer = benches.withBench { bench in
            serve(PendingFault(fault: PageFault(address: address, flags: flags), since: now), with: &bench)
        }
        return answer ?? refuse(address)
    }

    /// Why a thread faulted, as far as that is known.
    private func look(at address: UInt) -> Look {
        memory.sharingOrder { _, machine in
            guard let span = machine.spans.find(address) else { return .nobodys }
            guard let states = span.states else { return .missing }
            let state = states[span.page(at: address)]
            if state.contains(.poisoned) { return .lost }
            // If it is not there after all, the thread comes back, and then it is known as not protected.
            return state.contains(.protected) && !state.contains(.claimed) ? .protected : .missing
        }
    }

    private func serve(_ fault: PendingFault, with bench: inout Workbench) -> FaultSignal.Answer {
        var pending = fault
        while true {
            switch core.serve(pending, of: memory, with: &bench, readsAhead: true) {
            case .done, .failed, .pending:
                return .served
            case .left:
                // A loader whose source touches such memory may wait for its own page.
                guard !core.ownThreads.contains(NativeThread.currentID) else { return refuse(fault.fault.address) }
                memory.awaitSettling(of: fault.fault.address)
                return .served
            case .gone, .ended:
                return .unclaimed
            case .later(var again):
                // A pause that ended with the service.
                if memory.sharingOrder({ _, _ in memory.isSealed }) { return .unclaimed }
                again.setDue()
                pauseThread(until: Deadline(at: MonotonicInstant(nanoseconds: again.due)))
                pending = again
            }
        }
    }

    /// A fault of no region.
    @inline(never)
    private func serveStray(_ address: UInt) -> FaultSignal.Answer {
        guard core.isOurs(straying: address) else { return .unclaimed }
        return benches.withBench { bench in core.serveStray(at: address, by: bench.record) } ?? refuse(address)
    }

    /// The source has touched memory that it is to bring.
    @inline(never)
    private func refuse(_ address: UInt) -> FaultSignal.Answer {
        core.note(.selfDeadlock(thread: NativeThread.currentID, address: address))
        // The process may end before anybody is given the report.
        Self.complain("UserfaultPager: a source touched memory that it is to bring\n")
        return .refused
    }

    private static func complain(_ text: StaticString) {
        let bytes = unsafe UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
        _ = unsafe try? FileDescriptor.standardError.write(bytes)
    }

    // MARK: The end

    override func depart() {
        core.faultServer.withLock { $0 = nil }
        benches.forEachRecord { core.retire($0) }
        if core.uses.leave() { core.close() }
    }
}
