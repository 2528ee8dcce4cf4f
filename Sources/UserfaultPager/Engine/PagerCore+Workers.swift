internal import Synchronization
internal import UserfaultFD

// One thread reads and hands over, others load and fill: for sources that wait, and for descriptors that report forks.

extension PagerCore where Source: ~Copyable {
    /// What the reading thread does, until the pager stops.
    ///
    /// It takes no memory from the heap, runs nothing of the user's and takes no lock that is held where either is
    /// done: the thread that it would wait for may be inside `fork`, which waits for this thread to read of it.
    func readAll(with handler: inout Handler) throws(UserfaultError) {
        while !isStopping.load(ordering: .relaxed) {
            _ = try wait(&handler)
            // Before a further fork is read of, which needs a place.
            closeEndedChildren()
            while let ready = handler.ready.next() {
                if ready.token != Self.stopToken { try readOne(Int(ready.token), &handler) }
            }
        }
    }

    static var stopToken: UInt64 { .max }

    /// Does once, on memory of its own, all that reading may come to: what the language's runtime makes when a type is
    /// first used comes from the heap, and must be there before a fork.
    func rehearse(with handler: inout Handler) throws(UserfaultError) {
        _ = try pollSet.wait(into: &handler.ready, timeout: .zero)
        let count = try readEvents(memories[0], &handler)
        if count ?? 0 > 0 { handOver(of: 0, &handler) }
        let page = PageSize.base.bytes
        let region = RegionReference(try RegionRecord(id: 0, count: page, options: RegionOptions()))
        defer { unsafe region.destroy() }
        var machine = try PagerStateMachine()
        let range = AddressRange(start: UInt(page), count: page)
        try machine.add(Span(range: range, region: region, states: region.states, offset: 0))
        _ = try machine.apply(.remap(from: range.start, to: range.end, count: page))
        _ = try machine.apply(.remove(AddressRange(start: range.end, count: page)))
        _ = machine.firstUnfilledRun(of: nil, from: 0, pages: 1)
        if !children.isEmpty {
            adopt(try memories[0].duplicate(), of: machine, &handler.spare)
            for child in children where !child.isVacant { child.noteEnd() }
            closeEndedChildren()
        }
        _ = try machine.apply(.unmap(AddressRange(start: range.start, count: 2 * page)))
    }

    /// Waits until a descriptor has messages.
    private func wait(_ handler: inout Handler) throws(UserfaultError) -> Int {
        let budget = handler.waiter.budget()
        let learns = handler.waiter.learns
        let start = learns || budget > 0 ? MonotonicInstant.now.nanoseconds : 0
        defer { if learns { handler.waiter.learn(MonotonicInstant.now.nanoseconds &- start, budget: budget) } }
        while budget > 0, MonotonicInstant.now.nanoseconds &- start < budget, !isStopping.load(ordering: .relaxed) {
            let count = try pollSet.wait(into: &handler.ready, timeout: .zero)
            if count > 0 { return count }
        }
        return try pollSet.wait(into: &handler.ready)
    }

    /// Reads all that one descriptor has: events are behind every fault that was queued before them.
    private func readOne(_ number: Int, _ handler: inout Handler) throws(UserfaultError) {
        let memory = memory(number)
        guard !memory.isVacant else { return }
        while true {
            // Workers fill meanwhile, unless an event excludes them: a long fill holds up no other's fault.
            let count = memory.hasEvents ? try readEvents(memory, &handler) : try readFaults(memory, &handler)
            guard let count else { return pauseThread(for: .milliseconds(1)) }
            handOver(of: number, &handler)
            guard count == handler.batch.capacity else { return }
        }
    }

    /// Gives the workers the faults that were read.
    private func handOver(of number: Int, _ handler: inout Handler) {
        let memory = memory(number)
        for index in 0..<handler.faults.count {
            let pending = handler.faults[index]
            guard memory.beginUse() else { break }
            if !queue.put(WorkQueue.Item(pending: pending, memory: number)) {
                memory.endUse()
                // The kernel keeps the fault for us: the thread looks again and faults anew.
                memory.wake(pending.fault.page(size: .base))
            }
        }
        handler.faults.removeAll()
    }

    /// Closes children whose process has ended, as soon as nobody works for them any more.
    func closeEndedChildren() {
        // By number: an iterator of objects takes memory, unless it is optimised.
        for slot in children.indices where children[slot].hasEnded && !children[slot].isVacant {
            try? pollSet.remove(rawDescriptor: children[slot].rawDescriptor)
            children[slot].close()
        }
    }

    /// Fills pages behind one that was waited for, as long as nobody waits for others.
    func readAhead(of fault: PageFault, _ memory: ServedMemory, with bench: inout Workbench) {
        var left = 0
        var next: UInt = 0
        guard !touches.isOn else { return }
        memory.sharingOrder { _, machine in
            guard fault.kind == .missing, let span = machine.spans.find(fault.address), span.states != nil else {
                return
            }
            let page = fault.page(size: span.region.pageSize)
            left = span.region.readAhead(at: span.offset + Int(page.start - span.range.start))
            next = page.end
        }
        while left > 0, queue.count == 0, !isStopping.load(ordering: .relaxed) {
            let count = min(left, 16)
            guard
                let claim = fillUnasked(of: memory, with: &bench, { machine in machine.claim(at: next, count: count) })
            else { return }
            left -= claim.pages
            next = claim.range.end
        }
    }
}
