internal import UserfaultFD

// Which pages were written. Runs on the threads of callers.

extension PagerCore where Source: ~Copyable {
    /// Protects the pages that were written again, and says where they begin in the region, in order.
    func takeWritten(of region: RegionReference) throws(PagerError) -> [Int] {
        // All memory is taken now: inside the exclusion a fork may hold the heap's locks, and wait for who waits for us.
        var taken: [Int] = []
        taken.reserveCapacity(region.pageCount)
        let scan = resolvesWritesInKernel ? try openPageMap() : nil
        for memory in memories {
            var address: UInt = 0
            while let next = try protectSome(of: region, from: address, in: memory, &taken) { address = next }
            if scan != nil { try scan!.takeWritten(of: region, in: memory, &taken) }
        }
        return Set(taken).sorted().map { $0 << region.pageShift }
    }

    /// Whether the kernel itself lets writers through, and remembers the pages.
    private var resolvesWritesInKernel: Bool {
        memories[0].withDescriptor { uffd in uffd.enabledFeatures.contains(.writeProtectAsync) }
    }

    func openPageMap() throws(PagerError) -> PagemapScan {
        let process = owner.processID
        guard process != nil || owner.isCurrent else { throw .ownerGone }
        return try asPagerError { () throws(UserfaultError) in
            try PagemapScan(process: owner.isCurrent ? nil : process)
        }
    }

    /// Protects pages that were there before their memory was served: their writes count as well.
    ///
    /// Empty pages are left alone: a mark there would keep poison out.
    ///
    /// - Throws: Why nobody can say which pages those are, if the kernel protects empty ones too.
    func protectPresent(_ range: AddressRange, in memory: ServedMemory) throws(PagerError) {
        let scan: PagemapScan
        do throws(PagerError) {
            scan = try openPageMap()
        } catch {
            // Another process that may not be looked into, or no descriptor is free.
            return try protectAll(range, in: memory, insteadOf: error)
        }
        var start = range.start
        while start < range.end {
            let result: PagemapScan.Result
            do throws(PagemapScan.Failure) {
                result = try scan.scan(
                    AddressRange(start: start, end: range.end),
                    for: PagemapScan.Query(any: [.present, .swapped], reported: [.present]))
            } catch {
                return try protectAll(
                    AddressRange(start: start, end: range.end), in: memory, insteadOf: .kernel(error.error))
            }
            for found in result.regions { try protect(found.range, in: memory) }
            guard result.end > start else { return }
            start = result.end
        }
    }

    /// Without a look at the pages: only where the kernel protects none that are empty.
    private func protectAll(
        _ range: AddressRange, in memory: ServedMemory, insteadOf failure: PagerError
    ) throws(PagerError) {
        let marksEmptyPages = memory.withDescriptor { uffd in
            !uffd.enabledFeatures.isDisjoint(with: [.writeProtectUnpopulated, .writeProtectAsync])
        }
        guard !marksEmptyPages else { throw failure }
        try protect(range, in: memory)
    }

    private func protect(_ range: AddressRange, in memory: ServedMemory) throws(PagerError) {
        var attempts = 0
        while true {
            do throws(UserfaultError) {
                return try memory.withDescriptor { (uffd) throws(UserfaultError) in
                    try uffd.writeProtect(range, .protect)
                }
            } catch {
                guard error.reason == .mappingIsChanging, attempts < 2000 else {
                    if error.reason == .noSuchRange { return }
                    throw .kernel(error)
                }
                attempts += 1
                pauseThread(for: .microseconds(100))
            }
        }
    }

    /// The most pages looked through, and the most calls made, while no fault can be served.
    private static var sweepPages: Int { 4 << 10 }
    private static var sweepCalls: Int { 64 }

    /// - Returns: Where to go on, or `nil` at the end.
    private func protectSome(
        of region: RegionReference, from address: UInt, in memory: ServedMemory, _ taken: inout [Int]
    ) throws(PagerError) -> UInt? {
        while true {
            var end: UInt?
            var failure: UserfaultError?
            // No writer may be let through between the protection and its note.
            memory.excludingOthers(isRepeated: true) { uffd, machine in
                var calls = 0
                end = machine.sweepWritten(of: region, from: address, pages: Self.sweepPages) { run in
                    do throws(UserfaultError) {
                        calls += try protect(run, of: region, uffd, &taken)
                    } catch {
                        failure = error
                        return false
                    }
                    return calls < Self.sweepCalls
                }
            }
            guard let failure else { return end }
            guard failure.reason == .mappingIsChanging else {
                for page in taken { region.states.update(page) { $0.union(.written) } }
                throw .kernel(failure)
            }
            // What was taken until then is protected and noted.
            pauseThread(for: .microseconds(50))
        }
    }

    /// Protects written pages, and notes those that are this descriptor's still.
    ///
    /// - Returns: How many calls it took.
    /// - Throws: The kernel's answer; pages that are not protected count as written again.
    private func protect(
        _ run: WrittenRun, of region: RegionReference, _ uffd: borrowing UserfaultFD, _ taken: inout [Int]
    ) throws(UserfaultError) -> Int {
        var calls = 0
        var page = 0
        var most = run.count
        while page < run.count {
            let count = min(most, run.count - page)
            do throws(UserfaultError) {
                calls += 1
                try uffd.writeProtect(
                    run.range.part(at: page << region.pageShift, count: count << region.pageShift), .protect)
            } catch {
                guard error.reason == .noSuchRange else {
                    for left in page..<run.count { region.states.update(run.first + left) { $0.union(.written) } }
                    throw error
                }
                // Some of them were mapped anew, and in front of these the kernel may have protected some.
                if count == 1 { page += 1 }
                most = max(1, count / 2)
                continue
            }
            for protected in run.first + page..<run.first + page + count {
                region.states.update(protected) { $0.union(.protected) }
                taken.append(protected)
            }
            page += count
            most = 2 * count
        }
        return calls
    }
}

extension PagemapScan {
    /// Finds the pages of a region that were written, and protects them again in the same step.
    fileprivate borrowing func takeWritten(
        of region: RegionReference, in memory: ServedMemory, _ taken: inout [Int]
    ) throws(PagerError) {
        var query = Query.takeWritten
        // A mark on an empty page would keep poison out.
        query.any = [.present, .swapped]
        query.requiresWriteProtectAsync = false
        var address: UInt = 0
        while let span = memory.sharingOrder({ _, machine in machine.span(of: region, from: address) }) {
            address = span.range.end
            guard let states = span.states else { continue }
            let first = states.distance(from: region.states)
            var start = span.range.start
            while start < span.range.end {
                let rest = AddressRange(start: start, end: span.range.end)
                do throws(Failure) {
                    let result = try scan(rest, for: query)
                    add(result.regions, of: span, first, &taken)
                    guard result.end > start else { break }
                    start = result.end
                } catch {
                    add(error.regions, of: span, first, &taken)
                    for page in taken { region.states.update(page) { $0.union(.written) } }
                    throw .kernel(error.error)
                }
            }
        }
    }

    private borrowing func add(_ regions: [Region], of span: Span, _ first: Int, _ taken: inout [Int]) {
        for found in regions {
            let from = span.page(at: found.range.start)
            let to = span.page(at: found.range.end - 1)
            for page in from...to { taken.append(first + page) }
        }
    }
}
