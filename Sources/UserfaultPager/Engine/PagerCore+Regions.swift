internal import Synchronization
internal import UserfaultFD

extension PagerCore where Source: ~Copyable {
    /// Registers a range and begins to serve it.
    func add(_ range: AddressRange, offset: Int, options: RegionOptions) throws(PagerError) -> RegionReference {
        guard !isFinishing.load(ordering: .sequentiallyConsistent) else { throw .notRunning }
        guard !range.isEmpty, range.isAligned(to: options.pageSize), offset >= 0,
            offset & (options.pageSize.bytes - 1) == 0, !offset.addingReportingOverflow(range.count).overflow
        else { throw .badRange(range) }
        forgetUnmappedRegions()
        let parts = divide(range, options.pageSize)
        let id = registry.withLock { registry in
            registry.nextRegion += 1
            return registry.nextRegion
        }
        let reference = RegionReference(
            try asPagerError { () throws(UserfaultError) in
                try RegionRecord(id: id, count: range.count, options: options, fillsFile: source.fillsFile)
            })
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
                memories[part.memory].excludingOthers { uffd, machine in
                    try? uffd.unregister(part.range)
                    try? uffd.wake(part.range)
                    machine.forgetSpans(of: reference)
                }
            }
            retire(reference.id)
            throw error
        }
        return reference
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
        var modes: UserfaultFD.RegisterModes = .missing
        if source.fillsFile { modes.insert(.minor) }
        if region.writeProtected { modes.insert(.writeProtect) }
        let memory = memories[part.memory]
        // Known before it is registered: no fault of it is ever a stray.
        var attempts = 0
        while try !insert(span, into: memory) {
            // The address may just have become free, and the event that says so be on its way.
            guard memory.hasEvents, attempts < 2000 else { throw .badRange(range) }
            attempts += 1
            pause(microseconds: 100)
        }
        do throws(PagerError) {
            try asPagerError { () throws(UserfaultError) in
                try memory.withDescriptor { (uffd) throws(UserfaultError) in
                    _ = try uffd.register(part.range, modes: modes)
                }
            }
        } catch {
            memory.excludingOthers { _, machine in machine.forgetSpans(of: region) }
            throw error
        }
        // A child without a pager would read zeros. Where the kernel refuses, the memory is not the program's to share.
        if hidesFromChildren(region) {
            try? AddressSpace.advise(.dontFork, part.range)
        }
    }

    /// - Returns: `false` where there is something already.
    private func insert(_ span: Span, into memory: ServedMemory) throws(PagerError) -> Bool {
        try asPagerError { () throws(UserfaultError) in
            try memory.excludingOthers { (_, machine) throws(UserfaultError) -> Bool in
                guard !machine.spans.overlaps(span.range) else { return false }
                try machine.add(span)
                return true
            }
        }
    }

    /// Whether children of this process do not have a region's memory.
    private func hidesFromChildren(_ region: RegionReference) -> Bool {
        owner.isCurrent && children.isEmpty && region.isAbsentInFork
    }

    /// Gives children of this process the memory of every region again, which needs no pager any more.
    func showToChildren() {
        for memory in memories {
            memory.sharingOrder { _, machine in
                for index in 0..<machine.spans.count where hidesFromChildren(machine.spans[index].region) {
                    showToChildren(machine.spans[index].range)
                }
            }
        }
    }

    private func showToChildren(_ range: AddressRange) {
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
                unsafe reference.destroy()
                return true
            }
        }
    }
}

extension PagerCore where Source: ~Copyable {
    /// Calls with a region, whose record stays until the end even where another call removes it.
    ///
    /// - Returns: `nil` where there is no such region.
    func withRegion<Result>(
        _ id: Int, _ body: (RegionReference) throws(PagerError) -> Result
    ) throws(PagerError) -> Result? {
        let reference = registry.withLock { registry -> RegionReference? in
            let reference = registry.regions[id]?.reference
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

    var regionIDs: [Int] { registry.withLock { Array($0.regions.keys) } }

    /// Protects the pages that were written, and says which.
    func takeWritten(of region: RegionReference) throws(PagerError) -> [Int] {
        // All memory is taken now: inside the exclusion a fork may hold the heap's locks, and wait for who waits for us.
        var written: [WrittenPage] = []
        var taken: [Int] = []
        written.reserveCapacity(region.pageCount)
        taken.reserveCapacity(region.pageCount)
        for memory in memories {
            while let error = protectWritten(of: region, in: memory, &written, &taken) {
                guard error.reason == .mappingIsChanging else {
                    for page in taken { region.states.update(page) { $0.union(.written) } }
                    throw .kernel(error)
                }
                pause(microseconds: 50)
            }
        }
        return taken.map { $0 << region.pageShift }
    }

    /// - Returns: What went wrong on the way.
    private func protectWritten(
        of region: RegionReference, in memory: ServedMemory, _ written: inout [WrittenPage], _ taken: inout [Int]
    ) -> UserfaultError? {
        // Faults go on being served where nothing was written.
        guard memory.sharingOrder({ _, machine in machine.hasWritten(of: region) }) else { return nil }
        // No writer may be let through between the two.
        return memory.excludingOthers { (uffd, machine) -> UserfaultError? in
            written.removeAll(keepingCapacity: true)
            machine.findWritten(of: region, &written)
            for page in written {
                do throws(UserfaultError) {
                    try uffd.writeProtect(page.range, .protect)
                } catch {
                    if error.reason != .noSuchRange { return error }
                }
                region.states.update(page.number) { $0.subtracting(.written) }
                taken.append(page.number)
            }
            return nil
        }
    }

    /// Ends the service of a region whose pages are finished.
    func remove(_ region: RegionReference) {
        forEachMemory { memory in
            memory.excludingOthers { uffd, machine in
                while let span = machine.firstSpan(of: region) {
                    // The program may have unmapped it meanwhile, which does as well.
                    try? uffd.unregister(span.range)
                    try? uffd.wake(span.range)
                    if hidesFromChildren(region) { showToChildren(span.range) }
                    machine.forgetSpan(span)
                }
            }
        }
        retire(region.id)
    }
}
