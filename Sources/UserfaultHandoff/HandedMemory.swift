internal import SystemPackage
public import UserfaultFD
public import UserfaultPager

/// Memory that a client handed over: its userfaultfd, where its regions are, and whose it is.
public struct HandedMemory: ~Copyable, Sendable {
    /// The regions, in the order in which the client named them.
    public let regions: [HandedRegion]

    /// The process that connected.
    public let owner: Owner

    /// Who that is.
    public let peer: PeerCredentials

    /// The memory file that the regions map with `MAP_SHARED`, if the client sent one to be filled.
    public let file: Memfd?

    /// Where the client is told what became of its memory.
    public let client: ClientReply

    private let format: HandoffFormat
    private let uffd: UserfaultFD

    /// What came with a message, looked at before the connection is given away: its peer may have to be told no.
    struct Parts: ~Copyable {
        let uffd: UserfaultFD
        let file: Memfd?

        /// What cannot be taken stays in `descriptors`.
        init(
            _ content: HandoffMessage.Content, _ descriptors: inout ReceivedDescriptors, isMissingDescriptors: Bool
        ) throws(HandoffError) {
            guard descriptors.count > 0 else {
                // Those that the kernel dropped would have come if this process had had room for them.
                throw isMissingDescriptors ? .noRoomForDescriptors : .noDescriptor
            }
            let uffd = try HandedMemory.userfaultfd(content, &descriptors)
            let file = try HandedMemory.memoryFile(content.flags, &descriptors, isMissingDescriptors)
            self.uffd = uffd
            self.file = file
        }
    }

    init(
        _ content: HandoffMessage.Content, _ format: HandoffFormat, _ parts: consuming Parts, of owner: Owner,
        _ connection: consuming HandoffConnection, _ arrival: Arrival?
    ) {
        peer = connection.peer
        client = ClientReply(connection, format, arrival)
        regions = content.regions
        self.owner = owner
        file = parts.file
        uffd = parts.uffd
        self.format = format
    }

    private static func userfaultfd(
        _ content: HandoffMessage.Content, _ descriptors: inout ReceivedDescriptors
    ) throws(HandoffError) -> UserfaultFD {
        do throws(UserfaultError) {
            return try descriptors.takeUserfaultFD(
                features: content.features, handlesKernelFaults: content.flags.contains(.kernelFaults))
        } catch {
            throw .kernel(error)
        }
    }

    private static func memoryFile(
        _ flags: HandoffMessage.Flags, _ descriptors: inout ReceivedDescriptors, _ isMissing: Bool
    ) throws(HandoffError) -> Memfd? {
        guard flags.contains(.memoryFile) else { return nil }
        guard let number = descriptors.takeFirst() else {
            throw isMissing ? .noRoomForDescriptors : .malformed("the memory file is missing")
        }
        do throws(UserfaultError) {
            return try Memfd(adopting: number)
        } catch {
            _ = OwnedDescriptor(adopting: number)
            throw .kernel(error)
        }
    }

    /// Where the content of the last region ends in the source, in bytes.
    public var sourceEnd: Int { regions.reduce(0) { max($0, $1.end) } }

    /// Duplicates of the client's userfaultfd and of a pidfd of its process: for whoever keeps them if this process dies.
    ///
    /// Both are the caller's to close.
    ///
    /// - Throws: ``HandoffError/kernel(_:)``: `EMFILE`.
    public func duplicateDescriptors() throws(HandoffError) -> (userfaultfd: Int32, process: Int32) {
        let number = uffd.withUnsafeDescriptor { $0.rawValue }
        return try asHandoffError { () throws(UserfaultError) in
            let first = try OwnedDescriptor(duplicating: number)
            let second = try OwnedDescriptor(duplicating: owner.pidfd)
            return (first.release(), second.release())
        }
    }

    /// Whether a successor can go on if the server dies, with a `PagerState`, and a `SharedPagesState` if the memory is filled
    /// through a file: not if the memory follows forks.
    public var canBeResumed: Bool { !uffd.enabledFeatures.contains(.eventFork) }

    /// What a successor must know of this client.
    ///
    /// - Parameters:
    ///   - machine: The machine that the client belongs to.
    ///   - source: Identifies the content of the source.
    public func record(machine: String, source: String) -> KeptRecord {
        var content = HandoffMessage.Content(features: uffd.enabledFeatures, regions: regions)
        if uffd.handlesKernelFaults { content.flags.insert(.kernelFaults) }
        if file != nil { content.flags.insert(.memoryFile) }
        return KeptRecord(
            machine: machine, process: peer.process, source: source, format: format, content: content)
    }

    /// Makes a pager that serves all regions, starts it, and tells the client if its protocol has a word for that.
    ///
    /// - Parameters:
    ///   - source: Where pages come from.
    ///   - runtime: Threads that the pager shares with others; `nil` for threads of its own.
    ///   - configuration: How to work.
    ///   - options: How to serve the regions; the page size is each region's own.
    ///   - isPaused: Whether the pager begins in a pause: no page is filled before `Pager.resume()`.
    ///   - willStart: Is called when all regions are added, before the first page is filled.
    /// - Returns: The pager, and its regions in the order of ``regions``.
    /// - Throws: ``HandoffError/pager(_:)``; ``HandoffError/kernel(_:)`` if the client is gone. A client that is told so has its
    ///   pages as they were. Pages of regions that it had registered, and that were added already, are poisoned.
    public consuming func serve<Source: PageSource & ~Copyable>(
        from source: consuming Source,
        runtime: PagerRuntime? = nil,
        configuration: PagerConfiguration = PagerConfiguration(),
        options: RegionOptions = RegionOptions(),
        isPaused: Bool = false,
        willStart: () throws(HandoffError) -> Void = {}
    ) throws(HandoffError) -> (pager: Pager<Source>, regions: [Region]) {
        let (places, owner, format, client) = (regions, owner, format, client)
        do throws(HandoffError) { try check() } catch { throw Self.refuse(error, client) }
        let registered = regions.map { isRegistered($0) }
        let pager: Pager<Source>
        var added: [Region] = []
        do throws(PagerError) {
            pager = try Pager(uffd, source: source, owner: owner, runtime: runtime, configuration: configuration)
        } catch {
            throw Self.refuse(.pager(error), client)
        }
        do throws(HandoffError) {
            do throws(PagerError) {
                for place in places {
                    var options = options
                    options.pageSize = place.pageSize
                    if format == .firecracker { options.registration = .byOwner }
                    added.append(try pager.add(place.range, offset: place.offset, options: options))
                }
            } catch { throw .pager(error) }
            try willStart()
            do throws(PagerError) {
                if isPaused { try pager.pause() }
                try pager.start()
            } catch { throw .pager(error) }
        } catch {
            // Who hears the reply goes on by itself, with its pages as they were. If it has registered them itself, threads may
            // wait already, and must not read zeros: they are poisoned, as those of a client that hears nothing.
            for (region, isRegistered) in zip(added, registered) where client.isHeard {
                try? pager.remove(region, isRegistered ? .poison : .leaveZeros)
            }
            throw Self.refuse(error, client)
        }
        try client.accept()
        return (pager, added)
    }

    /// Refuses memory whose faults would never come: the client would read zeros.
    private func check() throws(HandoffError) {
        guard uffd.isNegotiated else { throw .malformed("the userfaultfd was not negotiated with UFFDIO_API") }
        try checkPageSizes()
        // What the kernel adds by itself is no lie of the client's.
        if format == .handoff, let actual = try? uffd.status().features,
            !actual.symmetricDifference(uffd.enabledFeatures).isSubset(of: .writeProtectUnpopulated)
        {
            let (named, real) = (uffd.enabledFeatures.rawValue, actual.rawValue)
            throw .malformed("the userfaultfd has the features \(real), and not \(named) as the message says")
        }
        if let size = try? file?.status().count, size < sourceEnd {
            throw .malformed("the memory file has \(size) bytes, and its regions need \(sourceEnd)")
        }
        guard format == .firecracker else { return }
        for region in regions where !isRegistered(region) {
            throw .malformed(
                "\(region.range) is not registered with the userfaultfd, or has no pages of \(region.pageSize.bytes) bytes"
            )
        }
    }

    /// Looks at the ends of a region, since it may have several mappings.
    private func isRegistered(_ region: HandedRegion) -> Bool {
        uffd.probe(region.range.part(at: 0, count: region.pageSize.bytes)) != .nobody
            && uffd.probe(region.lastPage) != .nobody
    }

    /// Refuses pages that the client does not have: one takes as much memory here.
    private func checkPageSizes() throws(HandoffError) {
        for pageSize in Set(regions.map(\.pageSize)) {
            let text = "there is a region with pages of \(pageSize.bytes) bytes, which"
            guard pageSize.isOfThisMachine else { throw .malformed("\(text) this machine does not have") }
            guard format != .firecracker || pageSize <= max(.base, .twoMiB) else {
                throw .malformed("\(text) no Firecracker has")
            }
        }
    }

    private static func refuse(_ error: HandoffError, _ client: ClientReply) -> HandoffError {
        client.refuse(error.description)
        return error
    }

    /// Whether ``refuse(_:)`` reaches the client: if not, it waits for ever for who does not serve it.
    public var isToldWhenRefused: Bool { client.isHeard }

    /// Tells the client why its memory is not served, if its protocol has a word for that.
    public consuming func refuse(_ reason: String) { client.refuse(reason) }
}
