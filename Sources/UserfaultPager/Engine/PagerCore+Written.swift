internal import UserfaultFD

// Which pages were written. Runs on the threads of callers.

extension PagerCore where Source: ~Copyable {
    /// Protects the pages that were written again, and says where they begin in the region, in order.
    func takeWritten(of region: RegionReference) throws(PagerError) -> [Int] {
        // All memory is taken now: inside the exclusion a fork may hold the heap's locks, and wait for who waits for us.
        var taken: [Int] = []
        taken.reserveCapacity(region.pageCount)
        for memory in memories {
            var address: UInt = 0
            while let next = try protectSome(of: region, from: address, in: memory, &taken) { address = next }
        }
        taken.sort()
        return taken.map { $0 << region.pageShift }
    }

    /// The most pages looked through, and the most calls made, while no fault can be served.
    private static var sweepPages: Int { 16_384 }
    private static var sweepCalls: Int { 64 }

    /// - Returns: Where to go on, or `nil` at the end.
    private func protectSome(
        of region: RegionReference, from address: UInt, in memory: ServedMemory, _ taken: inout [Int]
    ) throws(PagerError) -> UInt? {
        while true {
            var end: UInt?
            var failure: UserfaultError?
            // No writer may be let through between the protection and its note.
            memory.excludingOthers { uffd, machine in
                var calls = 0
                end = machine.sweepWritten(of: region, from: address, pages: Self.sweepPages) { run in
                    do throws(UserfaultError) {
                        try uffd.writeProtect(run.range, .protect)
                    } catch {
                        if error.reason != .noSuchRange {
                            for page in 0..<run.count {
                                region.states.update(run.first + page) { $0.union(.written) }
                            }
                            failure = error
                            return false
                        }
                    }
                    for page in 0..<run.count { taken.append(run.first + page) }
                    calls += 1
                    return calls < Self.sweepCalls
                }
            }
            guard let failure else { return end }
            if failure.reason == .mappingIsChanging {
                // What was taken until then is protected and noted.
                pauseThread(for: .microseconds(50))
                continue
            }
            for page in taken { region.states.update(page) { $0.union(.written) } }
            throw .kernel(failure)
        }
    }
}
