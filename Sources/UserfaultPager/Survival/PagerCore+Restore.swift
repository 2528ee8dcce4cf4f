internal import Synchronization
internal import UserfaultFD

// A pager goes on where one whose process was killed has ended. Runs on the thread that makes it, before any other.

extension PagerCore where Source: ~Copyable {
    /// Has what changes be written down for a successor.
    func attachState() throws(PagerError) {
        guard let file = configuration.state?.file, !file.isLeft else { return }
        guard file.take(resuming: false) else { throw .state("another pager has the state") }
        file[.features] = features
        memories[0].journal = file
    }

    /// Leaves the state to another pager, as new as it was.
    func detachState() {
        memories[0].journal?.giveBack()
        memories[0].journal = nil
    }

    private var features: UInt64 { memories[0].withDescriptor { uffd in uffd.enabledFeatures.rawValue } }

    /// Takes over what another pager has written down.
    func restore(from file: StateFile) throws(PagerError) {
        guard file.isLeft else { throw .state("the state is new, or another pager has it") }
        guard file[.features] == features else {
            throw .state(
                "the userfaultfd has other features than the pager had that used the state, or none has used it")
        }
        var regions: [Int: RegionReference] = [:]
        var isTaken = false
        do throws(PagerError) {
            let entries = try file.entries()
            for entry in entries { regions[entry.slot] = try restore(entry, from: file) }
            let spans = try file.spans(of: regions)
            guard file.take(resuming: true) else { throw .state("another pager has the state") }
            isTaken = true
            try restore(spans, from: file)
            for entry in entries where regions[entry.slot]!.isReferredTo { heal(regions[entry.slot]!, entry, file) }
            enter(entries, &regions)
            file.freeAll(but: Set(regions.keys))
        } catch {
            for region in regions.values { unsafe region.destroy() }
            if isTaken { file.leave() }
            throw error
        }
        // What was read and not answered is not delivered again: whoever waits, for whatever, faults again.
        memories[0].wakeAll()
    }

    private func restore(_ entry: StateFile.Entry, from file: StateFile) throws(PagerError) -> RegionReference {
        try zeros.reserve(entry.options.pageSize)
        return RegionReference(
            try asPagerError { () throws(UserfaultError) in
                try RegionRecord(
                    id: entry.id, count: entry.range.count, options: entry.options, fillsFile: source.fillsFile,
                    extents: extents(entry.offset..<entry.offset + entry.range.count, entry.options.pageSize),
                    states: try file.mapStates(at: entry.states, pages: entry.pages), slot: entry.slot)
            })
    }

    private func restore(_ spans: [(span: Span, isStale: Bool)], from file: StateFile) throws(PagerError) {
        let memory = memories[0]
        let isDamaged = try asPagerError { () throws(UserfaultError) in
            try memory.excludingOthers { (uffd, machine) throws(UserfaultError) -> Bool in
                var isDamaged = false
                do throws(UserfaultError) {
                    for (span, isStale) in spans where !isDamaged {
                        isDamaged = try !machine.restore(span, isStale: isStale)
                    }
                    if !isDamaged {
                        // Read by the other, and perhaps taken in by nobody.
                        isDamaged = try !file.recover { (event) throws(UserfaultError) in
                            unsafe try take(event, of: memory, &machine, uffd, &lastReading.spare)
                        }
                    }
                    if !isDamaged {
                        file.note(machine, changed: true)
                    }
                } catch {
                    machine.forgetAll()
                    throw error
                }
                if isDamaged { machine.forgetAll() }
                return isDamaged
            }
        }
        if isDamaged { throw StateFile.damaged }
        memory.journal = file
    }

    /// Lets the states of pages say what lasts.
    ///
    /// What a thread had in hand when it was killed may have been filled: the kernel knows.
    private func heal(_ region: RegionReference, _ entry: StateFile.Entry, _ file: StateFile) {
        let states = region.states
        let end = entry.states + entry.pages * PageStates.bytesPerPage
        let pagemap: PagemapScan?
        if let process = owner.processID { pagemap = try? PagemapScan(process: process) } else { pagemap = nil }
        var offset = entry.states
        while offset < end, let memory = file.memory(from: offset), memory.lowerBound < end {
            let first = max(0, (memory.lowerBound - entry.states) / PageStates.bytesPerPage)
            let last = min(entry.pages, (memory.upperBound - entry.states) / PageStates.bytesPerPage)
            for page in first..<max(first, last) where !states[page].isSubset(of: .lasting) {
                let before = states.update(page) { $0.intersection(.lasting) }
                guard before.contains(.claimed), before.isDisjoint(with: .decided), !region.writeProtected,
                    let address = memories[0].sharingOrder({ _, machine in
                        machine.spans.address(of: states.advanced(by: page))
                    })
                else { continue }
                if pagemap != nil, (try? pagemap!.isPopulated(address)) == true {
                    states.update(page) { $0.union(.present) }
                }
            }
            offset = max(memory.upperBound, offset + 1)
        }
    }

    /// Makes the regions known that still have memory.
    private func enter(_ entries: [StateFile.Entry], _ regions: inout [Int: RegionReference]) {
        for entry in entries {
            guard let region = regions[entry.slot] else { continue }
            guard region.isReferredTo else {
                regions[entry.slot] = nil
                unsafe region.destroy()
                continue
            }
            registry.withLock { registry in
                registry.regions[entry.id] = RegionEntry(
                    reference: region, parts: [RegionEntry.Part(memory: 0, range: entry.range)], offset: entry.offset,
                    options: entry.options)
                registry.nextRegion = max(registry.nextRegion, entry.id)
            }
        }
    }
}
