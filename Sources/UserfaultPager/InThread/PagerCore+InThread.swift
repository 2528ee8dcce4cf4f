internal import Synchronization
internal import SystemPackage
internal import UserfaultFD

// Begins and ends the service in threads that fault. Runs on the threads that make and stop the pager.

extension PagerCore where Source: ~Copyable {
    /// Has the faults of every region served in the threads that have them, from the first region on.
    func serveInThreads() throws(PagerError) {
        guard isInThread else { return }
        guard source.isSignalSafe, !isAsynchronous else {
            throw .configuration(
                "the source is not safe in a signal handler, so that no thread can ask it for its own faults: "
                    + "use one that says isSignalSafe, or a descriptor without Features.sigbus")
        }
        guard Source.Failure.self != (any Error).self else {
            throw .configuration(
                "the source throws `any Error`, which takes memory for each failure, as no signal handler may: "
                    + "give it a Failure that is a type")
        }
        Self.rehearse()
        // What asks the kernel makes a page for it when it first does so, which no handler may.
        _ = isOurs(straying: 0)
        let server = try InThreadServer(self)
        try FaultServers.add(server)
        faultServer.withLock { $0 = server }
    }

    /// Has the language's runtime make what it makes when a type is first used: in a handler it would take memory.
    @inline(never)
    private static func rehearse() {
        let types: [Any.Type] = [
            Claim?.self, AddressRange?.self, Served.self, Source.Failure.self, Source.Failure?.self,
        ]
        rehearsed.store(types.reduce(0) { $0 ^ ObjectIdentifier($1).hashValue }, ordering: .relaxed)
        // As an error, too: what makes a generic type one is made when it is first thrown.
        rehearsedFailure.withLock { $0 = Source.Failure.self }
    }

    /// Has no fault served any more, once nothing is registered.
    ///
    /// A source that hangs is left to itself at the deadline, and keeps the descriptors.
    func stopServingInThreads(until deadline: Deadline) {
        guard let server = faultServer.withLock({ $0 }) as? InThreadServer<Source> else { return }
        // As long as a handler may use them the descriptors stay open.
        uses.enterAgain()
        FaultServers.remove(server, until: deadline)
    }
}

extension PagerCore where Source: ~Copyable {
    /// Has other pagers' servers forget memory that is a region's now, where threads serve themselves.
    func leaveToThisPager(_ range: AddressRange, of region: RegionReference, in memory: ServedMemory) {
        guard isInThread, let server = faultServer.withLock({ $0 }) else { return }
        if !region.isRegisteredByPager {
            let holder = memory.withDescriptor { uffd in uffd.holder(of: range, modes: region.modes) }
            guard holder == .thisDescriptor else { return }
        }
        FaultServers.forget(range, butFor: server)
    }
}

// What the kernel cannot ask for. Runs on callers' threads.

extension PagerCore where Source: ~Copyable {
    /// Sees to it that every page of a range is there.
    func fetch(_ range: AddressRange) throws(PagerError) {
        // Elsewhere the kernel's accesses are served as the program's are.
        guard isInThread, !range.isEmpty else { return }
        guard let server = faultServer.withLock({ $0 }) else { throw .notRunning }
        do throws(PagerError) {
            try fetch(range, by: server)
        } catch {
            switch error {
            // The end of the service is what has forgotten or poisoned them.
            case .noSuchRegion, .pagesFailed:
                throw isEnding.load(ordering: .sequentiallyConsistent) ? .notRunning : error
            default: throw error
            }
        }
    }

    private func fetch(_ range: AddressRange, by server: FaultServer) throws(PagerError) {
        let pagemap = try asPagerError { () throws(UserfaultError) in try PagemapScan() }
        var address = range.start
        var failed = 0
        while address < range.end {
            guard let page = page(at: address) ?? grownPage(at: address) else { throw .noSuchRegion }
            switch try fetch(page, by: server, pagemap) {
            case .there: break
            case .lost: failed += 1
            case .nobodys: throw .noSuchRegion
            }
            address = page.end
        }
        if failed > 0 { throw .pagesFailed(failed) }
    }

    private enum Fetched {
        case there, lost, nobodys
    }

    private func page(at address: UInt) -> AddressRange? {
        memories[0].sharingOrder { _, machine in
            machine.spans.find(address).map { AddressRange.page(holding: address, size: $0.region.pageSize) }
        }
    }

    /// A page that a region has grown over.
    private func grownPage(at address: UInt) -> AddressRange? {
        let pending = PendingFault(straying: address)
        let memory = memories[0]
        guard memory.growRegion(over: memory.strayPage(of: pending.fault), askedBy: pending) else { return nil }
        return page(at: address)
    }

    /// Does what the thread would have done that touches a page.
    private func fetch(
        _ page: AddressRange, by server: FaultServer, _ pagemap: borrowing PagemapScan
    ) throws(PagerError) -> Fetched {
        // A page that was dropped without a word takes two attempts, each further one another thread's change.
        for _ in 0..<64 {
            if isLost(page.start) { return .lost }
            if try asPagerError({ () throws(UserfaultError) in try isThere(page, pagemap) }) { return .there }
            guard BlockedSignals.during({ FaultServers.ask(server, for: page.start) }) == .served else {
                if isStopping.load(ordering: .sequentiallyConsistent) { throw .notRunning }
                return isLost(page.start) ? .lost : .nobodys
            }
        }
        return .lost
    }

    /// Whether the kernel finds a page.
    ///
    /// A mark of write protection looks like a page that is swapped out.
    private func isThere(_ page: AddressRange, _ pagemap: borrowing PagemapScan) throws(UserfaultError) -> Bool {
        guard try pagemap.isPopulated(page.start) else { return false }
        let isMarkable = memories[0].sharingOrder { _, machine in
            machine.spans.find(page.start)?.region.writeProtected ?? false
        }
        guard isMarkable else { return true }
        do throws(UserfaultError) {
            try AddressSpace.advise(.populateRead, page)
        } catch {
            // Kernels that lack this advice (Linux 5.14 has it) leave no such marks.
            return error.errno != .badAddress
        }
        return true
    }

    private func isLost(_ address: UInt) -> Bool {
        memories[0].sharingOrder { _, machine in
            guard let span = machine.spans.find(address), let states = span.states else { return false }
            return states[span.page(at: address)].contains(.poisoned)
        }
    }
}

/// What keeps the look at types from being left out.
private let rehearsed = Atomic<Int>(0)
private let rehearsedFailure = Mutex<(any Error.Type)?>(nil)
