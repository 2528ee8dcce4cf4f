internal import Synchronization
internal import SystemPackage
internal import UserfaultFD

// Runs in signal handlers of the threads that touch served memory.

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
            // Most benches are never used.
            let record = core.makeRecord(takesRow: false)
            do throws(UserfaultError) {
                benches.add(try Workbench(record))
            } catch {
                core.retire(record)
                throw .kernel(error)
            }
        }
    }

    override func serve(_ address: UInt) -> FaultSignal.Answer {
        benches.withBench { bench in
            let now = MonotonicInstant.now.nanoseconds
            return serve(PendingFault(fault: PageFault(address: address, flags: []), since: now), with: &bench)
        } ?? answerNested(address)
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
            case .gone:
                return answerRefused(fault.fault.address, by: bench.record)
            case .ended:
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

    /// What to say of a fault for which nothing could be filled.
    @inline(never)
    private func answerRefused(_ address: UInt, by record: ThreadRecord) -> FaultSignal.Answer {
        switch memory.sharingOrder({ _, machine in machine.cause(ofSignalAt: address) }) {
        case .lost: .refused
        case .nobodys where core.isOurs(straying: address): core.serveStray(at: address, by: record)
        case .nobodys, .missing, .protected: .unclaimed
        }
    }

    /// What to say of a fault of a source.
    @inline(never)
    private func answerNested(_ address: UInt) -> FaultSignal.Answer {
        switch memory.sharingOrder({ _, machine in machine.cause(ofSignalAt: address) }) {
        case .lost: .refused
        case .nobodys where !core.isOurs(straying: address): .unclaimed
        case .nobodys, .missing, .protected: refuse(address)
        }
    }

    /// The source has touched memory that it is to bring.
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
