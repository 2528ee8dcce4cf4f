internal import SystemPackage
internal import Synchronization
internal import UserfaultFD

// Regions come and go. Runs on the threads of callers; records are freed by the watchdog too.

extension PagerCore where Source: ~Copyable {
    /// Registers a range and begins to serve it.
    func add(_ range: AddressRange, offset: Int, options: RegionOptions) throws(PagerError) -> RegionReference {
        guard !isFinishing.load(ordering: .sequentiallyConsistent) else { throw .notRunning }
        try options.check()
        guard !range.isEmpty, range.isAligned(to: options.pageSize) else { throw .badRange(range) }
        guard options.pageSize.holds(offset), !offset.addingReportingOverflow(range.count).overflow else {
            throw .badOffset(offset)
        }
        forgetUnmappedRegions()
        try zeros.reserve(options.pageSize)
        let parts = divide(range, options.pageSize)
        let id = registry.withLock { registry in
            registry.nextRegion += 1
            return registry.nextRegion
        }
        let reference = try makeRecord(of: range, id: id, offset: offset, options)
        // Until it is served nobody else refers to it.
        reference.countReferences(1)
        defer { reference.countReferences(-1) }
        registry.withLock {
            $0.regions[reference.id] = RegionEntry(
                reference: reference, parts: parts, offset: offset, options: options)
        }
        var served = 0
        do throws(PagerError) {
            for part in parts {
                try serve(part, of: range, reference, offset)
                served += 1
            }
        } catch {
            for part in parts[..<served] {
                memories[part.memory].excludingOthers(givingUp: true) { uffd, machine in
                    unregister(part.range, of: reference, uffd)
                    machine.forgetSpans(of: reference)
                }
                if hidesFromChildren(reference) { showToChildren(part.range) }
            }
            retire(reference.id)
            throw error
        }
        if let slot = reference.slot { configuration.state?.file.commit(slot) }
        return reference
    }

    private func makeRecord(
        of range: AddressRange, id: Int, offset: Int, _ options: RegionOptions
    ) throws(PagerError) -> RegionReference {
        let bytes = offset..<offset + range.count
        guard let file = configuration.state?.file else {
            return RegionReference(
                try asPagerError { () throws(UserfaultError) in
                    try RegionRecord(
                        id: id, count: range.count, options: options, fillsFile: source.fillsFile,
                        extents: extents(bytes, options.pageSize))
                })
        }
        guard memories[0].journal != nil else {
            throw .state("the state comes from another process: resume it, or make a new PagerState")
        }
        let entry = try file.makeEntry(id: id, range, offset: offset, options)
        do throws(PagerError) {
            return RegionReference(
                try asPagerError { () throws(UserfaultError) in
                    try RegionRecord(
                        id: id, count: range.count, options: options, fillsFile: source.fillsFile,
                        extents: extents(bytes, options.pageSize),
                        states: try file.mapStates(at: entry.states, pages: entry.pages), slot: entry.slot)
                })
        } catch {
            file.free(entry.slot)
            throw error
        }
    }

    /// Where the source has data for a region.
    func extents(_ bytes: Range<Int>, _ pageSize: PageSize) -> Extents {
        Extents(of: bytes, pageSize) { source.extent(from: $0) }
    }

    /// The range in parts of equal size, one for each descriptor.
    private func divide(_ range: AddressRange, _ pageSize: PageSize) -> [RegionEntry.Part] {
        let pages = range.count / pageSize.bytes
        let share = pageSize.bytes * ((pages + memories.count - 1) / memories.count)
        return stride(from: 0, to: range.count, by: share).enumerated().map { index, start in
            RegionEntry.Part(
                memory: index, range: range.part(at: start, count: min(share, range.count - start)))
        }
    }

    private func serve(
        _ part: RegionEntry.Part, of range: AddressRange, _ region: RegionReference, _ offset: Int
    ) throws(PagerError) {
        let skipped = Int(part.range.start - range.start)
        let span = Span(
            range: part.range, region: region, states: region.states.advanced(by: skipped >> region.pageShift),
            offset: offset + skipped)
        let memory = memories[part.memory]
        // Known before it is registered: no fault of it is ever a stray.
        var attempts = 0
        while try !insert(span, into: memory) {
            // The address may just have become free, and the event that says so be on its way.
            guard memory.hasEvents, attempts < 2000 else { throw .badRange(range) }
            attempts += 1
            pauseThread(for: .microseconds(100))
        }
        var isRegistered = false
        do throws(PagerError) {
            if region.isRegisteredByPager {
                let ioctls = try asPagerError { () throws(UserfaultError) in
                    try memory.withDescriptor { (uffd) throws(UserfaultError) in
                        try uffd.register(part.range, modes: region.modes)
                    }
                }
                isRegistered = true
                // Memory that takes zero pages has base pages, any of which may be dropped by itself.
                guard ioctls.contains(.zeropage) != region.isHuge else { throw .badPageSize(1 << region.pageShift) }
            }
            isRegistered = true
            // Stopped meanwhile: nobody would serve it.
            if memory.sharingOrder({ _, _ in memory.isSealed }) { throw .notRunning }
            if region.writeProtected { try protectPresent(part.range, in: memory) }
            leaveToThisPager(part.range, of: region, in: memory)
        } catch {
            // The kernel looks at the whole range before it begins: what it refuses stays another's, and only memory for records
            // of its own can be missing half-way.
            if case .kernel(let refusal) = error, refusal.errno == .noMemory { isRegistered = true }
            memory.excludingOthers(givingUp: true) { uffd, machine in
                if isRegistered { unregister(part.range, of: region, uffd) }
                machine.forgetSpans(of: region)
            }
            throw error
        }
        // A child without a pager would read zeros. Where the kernel refuses, the memory is not the program's to share.
        if hidesFromChildren(region) {
            try? AddressSpace.advise(.dontFork, part.range)
        }
        memory.releaseStrays(in: part.range)
    }

    /// Undoes what adding a region has registered.
    private func unregister(_ range: AddressRange, of region: RegionReference, _ uffd: borrowing UserfaultFD) {
        if region.isRegisteredByPager { uffd.letGo(of: range) }
        try? uffd.wake(range)
    }

    /// - Returns: `false` where there is something already.
    private func insert(_ span: Span, into memory: ServedMemory) throws(PagerError) -> Bool {
        if memory.sharingOrder({ _, _ in memory.isSealed }) { throw .notRunning }
        return try asPagerError { () throws(UserfaultError) in
            try memory.excludingOthers { (_, machine) throws(UserfaultError) -> Bool in
                guard !machine.spans.overlaps(span.range) else { return false }
                try machine.add(span)
                return true
            }
        }
    }

    /// Whether children of this process do not have a region's memory.
    func hidesFromChildren(_ region: RegionReference) -> Bool {
        owner.isCurrent && children.isEmpty && region.isAbsentInFork
    }

    /// Gives children of this process memory again, which needs no pager any more.
    func showToChildren(_ range: AddressRange) {
        try? AddressSpace.advise(.doFork, range)
    }

    /// Forgets a region.
    func retire(_ id: Int) {
        registry.withLock { registry in
            if let entry = registry.regions.removeValue(forKey: id) { registry.retired.append(entry.reference) }
        }
        retireRegions()
    }

    /// Forgets regions of which the program has unmapped everything: now and then, so that adding stays cheap.
    private func forgetUnmappedRegions() {
        registry.withLock { registry in
            guard registry.regions.count >= registry.sweep else { return }
            for (id, entry) in registry.regions where !entry.reference.isReferredTo {
                registry.regions[id] = nil
                registry.retired.append(entry.reference)
            }
            registry.sweep = max(16, 2 * registry.regions.count)
        }
        retireRegions()
    }

    /// Frees the records of regions that were forgotten, once nobody refers to them any more.
    func retireRegions() {
        registry.withLock { registry in
            registry.retired.removeAll { reference in
                guard !reference.isReferredTo,
                    !registry.records.contains(where: { $0.isWorking(on: reference.bits) })
                else { return false }
                if let slot = reference.slot { configuration.state?.file.free(slot) }
                unsafe reference.destroy()
                return true
            }
        }
    }
}

extension PagerCore where Source: ~Copyable {
    /// What is known of a region; `nil` for another pager's, and for one that was removed.
    func entry(of region: Region) -> RegionEntry? {
        guard region.pager == number else { return nil }
        return registry.withLock { $0.regions[region.id] }
    }

    /// Calls with a region, whose record stays until the end even where another call removes it.
    ///
    /// - Returns: `nil` where there is no such region.
    func withRegion<Result>(
        _ region: Region, _ body: (RegionReference) throws(PagerError) -> Result
    ) throws(PagerError) -> Result? {
        guard region.pager == number else { return nil }
        let reference = registry.withLock { registry -> RegionReference? in
            let reference = registry.regions[region.id]?.reference
            reference?.countReferences(1)
            return reference
        }
        guard let reference else { return nil }
        defer {
            reference.countReferences(-1)
            retireRegions()
        }
        return try body(reference)
    }

    /// Calls with all regions, whose records stay until the end even where another call removes them.
    func withAllRegions<Result>(
        _ body: ([RegionReference]) throws(PagerError) -> Result
    ) throws(PagerError) -> Result {
        let regions = registry.withLock { registry in
            let all = registry.regions.values.map(\.reference)
            for region in all { region.countReferences(1) }
            return all
        }
        defer {
            for region in regions { region.countReferences(-1) }
            retireRegions()
        }
        return try body(regions)
    }

    var regionIDs: [Int] { registry.withLock { Array($0.regions.keys) } }

    /// Ends the service of a region: what is still open is poisoned, or left as zeros.
    ///
    /// - Returns: `false` if pages could not be poisoned by the deadline, because the program does not come to the end of
    ///   a change. That descriptor and those after it serve the region still.
    func remove(_ region: RegionReference, leavingZeros: Bool, until deadline: Deadline) -> Bool {
        var poisoned = 0
        var isRemoved = true
        var hadIt = false
        let map = openHoleMap()
        func remove(from memory: ServedMemory, _ map: borrowing PagemapScan?) {
            guard isRemoved else { return }
            if memory.sharingOrder({ _, machine in machine.firstSpan(of: region) }) == nil { return }
            hadIt = true
            isRemoved = self.remove(region, from: memory, map, poisoning: !leavingZeros, until: deadline, &poisoned)
        }
        for memory in memories { remove(from: memory, map) }
        // A grandchild that was being taken on may have come to a place that was passed.
        repeat {
            hadIt = false
            for child in children where child.beginUse() {
                remove(from: child, nil)
                child.endUse()
            }
        } while hadIt && isRemoved
        countPoisoned(poisoned)
        if isRemoved { retire(region.id) }
        if let server = faultServer.withLock({ $0 }) { FaultServers.noteRemoval(by: server) }
        return isRemoved
    }

    private func remove(
        _ region: RegionReference, from memory: ServedMemory, _ map: borrowing PagemapScan?, poisoning: Bool,
        until deadline: Deadline, _ poisoned: inout Int
    ) -> Bool {
        // Nothing of it is registered any more. What happened before may still be to be read.
        var isReleased = false
        while true {
            let isLate = deadline.hasPassed
            let isRemoved = memory.excludingOthers(givingUp: true) { (uffd, machine) -> Bool in
                guard let first = machine.firstSpan(of: region) else { return true }
                let wasReleased = isReleased
                if !wasReleased {
                    let rest =
                        poisoning && canPoison
                        ? poisonUnfilled(of: machine, in: uffd, map, region: region, count: &poisoned) : .done
                    if rest == .changing { return false }
                    if rest == .failed { killOwner() }
                    releaseSpans(of: region, of: memory, uffd, machine, map)
                    region.noteLeaving()
                    isReleased = true
                }
                // A child that was forked before must still find the region, and memory that was moved before is its as well.
                if !isLate, isChanging(first, of: memory, uffd) { return false }
                if wasReleased { releaseSpans(of: region, of: memory, uffd, machine, map) }
                while let span = machine.firstSpan(of: region) { machine.forgetSpan(span) }
                return true
            }
            if isRemoved { return true }
            if isLate { return false }
            readBeforeStart(memory)
            pauseThread(for: .microseconds(50))
        }
    }

    private func releaseSpans(
        of region: RegionReference, of memory: ServedMemory, _ uffd: borrowing UserfaultFD,
        _ machine: borrowing PagerStateMachine, _ map: borrowing PagemapScan?
    ) {
        for index in 0..<machine.spans.count where machine.spans[index].region == region {
            release(machine.spans[index], of: memory, uffd, machine, map)
        }
    }

    /// Whether there are changes of memory whose events nobody has read yet.
    ///
    /// In the order, so that no event is read meanwhile, with which a program that does little else begins the next change: as
    /// long as there is none, it may be between two of them.
    private func isChanging(_ span: Span, of memory: ServedMemory, _ uffd: borrowing UserfaultFD) -> Bool {
        guard memory.hasEvents else { return false }
        let page = span.range.part(at: 0, count: span.region.pageSize.bytes)
        let end = MonotonicInstant.now.nanoseconds &+ 200_000
        repeat {
            for _ in 0..<16 where uffd.probe(page) != .changing { return false }
            guard (try? poll(memory.rawDescriptor, until: Deadline(after: .zero))) == 0 else { return true }
        } while MonotonicInstant.now.nanoseconds < end
        return true
    }
}
