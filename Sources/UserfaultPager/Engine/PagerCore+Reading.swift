internal import Synchronization
internal import UserfaultFD

// What a reader of the runtime does for one pager: serve in place, or hand over to loaders, for sources that wait and for
// descriptors that report forks. Runs on readers; the rehearsal on the thread that starts the pager.

extension PagerCore where Source: ~Copyable {
    /// Reads once of one descriptor, so that others have their turn: what is left is ready again at once.
    ///
    /// Where it hands over it takes no memory from the heap, runs nothing of the user's and takes no lock that is held
    /// where either is done: the thread that it would wait for may be inside `fork`, which waits for this thread to read
    /// of it.
    func read(_ memory: ServedMemory, _ readiness: PollSet.Readiness, with handler: inout Handler) {
        // Before a further fork is read of, which needs a place.
        closeEndedChildren()
        guard memory.beginUse() else { return }
        defer { memory.endUse() }
        handler.bench.record = readerRecord
        do throws(UserfaultError) {
            if readiness.contains(.error) {
                // Another process that has the descriptor too has made it one that blocks.
                try memory.withDescriptor { (uffd) throws(UserfaultError) in try uffd.setNonBlocking(true) }
            }
            let count = memory.hasEvents ? try readEvents(memory, &handler) : try readFaults(memory, &handler)
            guard count != nil else { return awaitDescriptor(&handler) }
            handler.lackSince = 0
            if servesInPlace { serveAll(of: memory, &handler) } else { handOver(of: memory, &handler) }
        } catch {
            // Nobody may be left behind waiting, nor read zeros.
            if !isStopping.load(ordering: .sequentiallyConsistent) { killOwner() }
            reader?.remove(memory)
        }
    }

    /// Waits a little, because no descriptor is free for the child of a fork, and reports that once.
    private func awaitDescriptor(_ handler: inout Handler) {
        let now = MonotonicInstant.now.nanoseconds
        if handler.lackSince == 0 { handler.lackSince = now }
        if handler.lackSince < now, now &- handler.lackSince > 1_000_000_000 {
            note(.forkWaits)
            handler.lackSince = .max
        }
        pauseThread(for: .milliseconds(1))
    }

    /// Serves what was read; what has to be tried again, or waited for, is left to loaders.
    private func serveAll(of memory: ServedMemory, _ handler: inout Handler) {
        for index in 0..<handler.faults.count {
            switch serve(handler.faults[index], of: memory, with: &handler.bench, readsAhead: true) {
            case .done, .left, .gone, .failed, .pending: break
            case .later(var again):
                again.setDue()
                if !postpone(again, of: memory) { memory.wake(again.fault.page(size: .base)) }
            case .ended:
                memory.noteEnd()
                runtime.clock.wake()
            }
        }
        handler.faults.removeAll()
    }

    /// Does once, on memory of its own, all that reading may come to: what the language's runtime makes when a type is
    /// first used comes from the heap, and must be there before a fork.
    func rehearse(with handler: inout Handler) { try? rehearseAll(with: &handler) }

    private func rehearseAll(with handler: inout Handler) throws(UserfaultError) {
        Waiter.rehearse()
        pauseThread(for: .microseconds(1))
        let queue = try WorkQueue(capacity: 256, loaderLimit: 1, signals: SharedFutex())
        let nobody = PendingFault(fault: PageFault(address: 0, flags: []), since: 0)
        // Until it has no room, so that it grows.
        while queue.put(WorkQueue.Item(pending: nobody, memory: 0)) {}
        // The clock asks for it, under the lock that is needed here.
        _ = queue.oldest
        _ = queue.takeAny()
        let page = PageSize.base.bytes
        let region = RegionReference(try RegionRecord(id: 0, count: page, options: RegionOptions()))
        defer { unsafe region.destroy() }
        var machine = try PagerStateMachine()
        let range = AddressRange(start: UInt(page), count: page)
        try machine.add(Span(range: range, region: region, states: region.states, offset: 0))
        _ = try machine.apply(.remap(from: range.start, to: range.end, count: page))
        // Where no program has memory.
        memories[0].releaseStrays(in: range)
        _ = try machine.apply(.remove(AddressRange(start: range.end, count: page)))
        _ = machine.firstUnfilledRun(of: nil, from: 0, pages: 1)
        // Where no program has memory.
        _ = memories[0].withDescriptor { uffd in
            FillOutcome.poisoning(range, of: region, region.states, in: uffd)
        }
        let parent = memories[0]
        if vacantSlot(for: parent) != nil,
            let slot = adopt(try parent.duplicate(), of: parent, machine, &handler.spare)
        {
            _ = children[slot].probeEndAlone()
            children[slot].noteEnd()
            // Another thread may be looking at it, and it refers to the region here.
            while !children[slot].isVacant {
                closeEndedChildren()
                NativeThread.yield()
            }
        }
        _ = try machine.apply(.unmap(AddressRange(start: range.start, count: 2 * page)))
        // At the end: there may be messages already, and a child among them is served from then on.
        reader?.rehearse(memories[0], with: &handler)
    }

    /// Gives the loaders the faults that were read.
    private func handOver(of memory: ServedMemory, _ handler: inout Handler) {
        guard !handler.faults.isEmpty else { return }
        for index in 0..<handler.faults.count {
            let pending = handler.faults[index]
            guard memory.beginUse() else { break }
            // Without room the kernel keeps the fault for us. Its thread waits until there is: it would only fault again.
            if !queue.putSilently(WorkQueue.Item(pending: pending, memory: memory.number)) { memory.endUse() }
        }
        queue.wakeLoaders(handler.faults.count)
        handler.faults.removeAll()
    }

    /// Closes children whose process has ended, as soon as nobody works for them any more.
    func closeEndedChildren() {
        // By number: an iterator of objects takes memory, unless it is optimised.
        for slot in children.indices where children[slot].hasEnded && !children[slot].isVacant {
            reader?.remove(children[slot])
            children[slot].close()
        }
    }

    /// Fills pages behind one that was waited for, as long as nobody waits for others.
    func readAhead(of pending: PendingFault, _ memory: ServedMemory, with bench: inout Workbench) {
        let fault = pending.fault
        var left = 0
        var next: UInt = 0
        guard !touches.isOn else { return }
        memory.sharingOrder { _, machine in
            guard fault.kind == .missing, let span = machine.spans.find(fault.address), span.states != nil else {
                return
            }
            let page = fault.page(size: span.region.pageSize)
            // A thread that has tried the fault has counted it.
            left =
                pending.wasTried
                ? pending.ahead : span.region.readAhead(at: span.offset + Int(page.start - span.range.start))
            next = page.end
        }
        while left > 0, queue.count == 0, !isStopping.load(ordering: .relaxed) {
            let count = min(left, 16)
            guard
                let filled = fillUnasked(of: memory, with: &bench, { machine in machine.claim(at: next, count: count) })
            else { return }
            left -= filled.pages
            next = filled.range.end
        }
    }
}
