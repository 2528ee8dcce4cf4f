internal import CUserfaultFD
internal import SystemPackage

/// Whose memory a range is, as the kernel sees it.
package enum RangeHolder: Hashable, Sendable {
    /// One mapping that is registered with this descriptor.
    case thisDescriptor
    /// One mapping, registered with another descriptor.
    case another
    /// Nothing registered is mapped there, or more than one mapping.
    case nobody
    /// The mapping changes: read its event, then ask again.
    case changing
    /// The process has ended.
    case processGone
}

extension UserfaultFD {
    /// Whether a range lies in one mapping that is registered with any descriptor, without changing anything.
    ///
    /// Asks for a copy from memory that nobody can read: the kernel looks at the destination first. Nothing is thrown: it
    /// is asked while a fork may hold the heap, and an observer of thrown errors might take memory.
    ///
    /// - Parameter range: Whole pages, where a process can have memory.
    package func probe(_ range: AddressRange) -> RangeHolder { probeModes(range).holder }

    /// As ``probe(_:)``, and whether the mapping is registered for write protection.
    private func probeModes(_ range: AddressRange) -> (holder: RangeHolder, isForWriteProtection: Bool) {
        // A protected copy into memory that is registered, but not for write protection, is refused before the kernel takes
        // a page for it and tries to read: that costs a tenth. Any other answer is that of a copy into memory that has it.
        let canProtect = supportedFeatures.contains(.writeProtect)
        return switch copyNothing(to: range, options: canProtect ? .writeProtect : []) {
        case .noSuchFileOrDirectory: (.nobody, false)
        case .noSuchProcess: (.processGone, false)
        case .resourceTemporarilyUnavailable: (.changing, false)
        case .invalidArgument: (canProtect ? .thisDescriptor : .nobody, false)
        default: (.thisDescriptor, canProtect)
        }
    }

    /// Who holds a range.
    ///
    /// A range that is registered is registered again, which changes nothing if it is this descriptor's, and fails with
    /// `EBUSY` if it is another's. Nobody lets go of it by ``letGo(of:)`` meanwhile. A program that in just this microsecond
    /// unregisters it, closes its descriptor, or maps other memory there, has that registered: ``Features/eventUnmap`` spares
    /// the question.
    ///
    /// What is registered for modes that include those of the question stays as it is. So the question is for write
    /// protection alone if the memory has that, and without it if not: the kernel tells nothing of other modes.
    ///
    /// - Parameter modes: The modes that the range is registered with, as far as is known. Of memory without write protection
    ///   that is registered for others, they replace these.
    package func holder(of range: AddressRange, modes: RegisterModes) -> RangeHolder {
        let mask = BlockedSignals.block()
        cuffd_holding_ask(holdingPlace)
        defer {
            cuffd_holding_end(holdingPlace)
            BlockedSignals.restore(mask)
        }
        let (found, isForWriteProtection) = probeModes(range)
        guard found == .thisDescriptor else { return found }
        let others = modes.subtracting(.writeProtect)
        let asked = isForWriteProtection ? .writeProtect : others.isEmpty ? modes : others
        var ioctls: UInt64 = 0
        // No error is made of the answer: a thread that reads of a fork must not take memory from the heap.
        let answer = unsafe cuffd_register(
            descriptor.rawValue, UInt64(range.start), UInt64(range.count), asked.rawValue, &ioctls)
        return answer >= 0 ? .thisDescriptor : Errno(rawValue: -answer) == .resourceBusy ? .another : .nobody
    }

    /// The page that holds an address and is registered with any descriptor: a huge page of hugetlbfs as a whole.
    ///
    /// A base page also where nothing is registered, or nothing can be told.
    ///
    /// - Parameter modes: As for ``holder(of:modes:)``.
    package func registeredPage(holding address: UInt, modes: RegisterModes) -> AddressRange {
        let base = AddressRange.page(holding: address, size: .base)
        // Of all memory that can be registered, only a part of a huge page is no place to copy to.
        guard copyNothing(to: base) == .invalidArgument else { return base }
        // Nor can a part be registered. So the smallest size that can is the page's.
        for shift in PageSize.base.log2 + 1..<Self.hugeShiftLimit {
            guard let size = PageSize(bytes: 1 << shift) else { continue }
            let page = AddressRange.page(holding: address, size: size)
            switch holder(of: page, modes: modes) {
            case .thisDescriptor, .another: return page
            case .nobody: continue
            case .changing, .processGone: return base
            }
        }
        return base
    }

    /// Above the largest huge page of any machine, 16 GiB.
    private static var hugeShiftLimit: Int { 35 }

    /// Before the first question about a holder, and before memory is let go of for the first time.
    package static func prepareForHolding() throws(UserfaultError) {
        _ = try answer(to: .createLock) { cuffd_holding_prepare() }
    }

    /// Which of the locks orders questions about the memory of a process.
    ///
    /// The same number for all descriptors of one process, whose faults wait for the kernel anyway while memory is let go of.
    ///
    /// - Parameter process: `nil` for this process, and for one that is not known.
    package static func holdingPlace(of process: Int32?) -> UInt32 {
        guard let process else { return 0 }
        return 1 + UInt32(bitPattern: process) % UInt32(CUFFD_HOLDING_PLACES - 1)
    }

    /// Unregisters a range while nobody in this process asks who holds it; what is not registered is left as it is.
    package func letGo(of range: AddressRange) {
        Self.excludingQuestions(at: holdingPlace) { try? unregister(range) }
    }

    /// Calls while nobody in this process asks who holds memory of a place.
    package static func excludingQuestions(at place: UInt32, _ body: () -> Void) {
        let mask = BlockedSignals.block()
        cuffd_holding_let_go(place)
        defer {
            cuffd_holding_end(place)
            BlockedSignals.restore(mask)
        }
        body()
    }

    /// Whether the memory behind this descriptor is the calling process' own, without changing anything.
    ///
    /// A page at a random address is there for the descriptor as long as it is mapped here, and not afterwards, only if
    /// it is this process' memory that the descriptor knows.
    ///
    /// - Returns: `nil` if it cannot be told, because an event of the descriptor waits to be read.
    package func isOfThisProcess() throws(UserfaultError) -> Bool? {
        let mapping = try Self.mapAnywhere()
        let range = mapping.range
        // What is registered at this address is another process' memory, and is to be left alone.
        switch probe(range) {
        case .nobody: break
        case .changing: return nil
        case .thisDescriptor, .another, .processGone: return false
        }
        guard (try? unregister(range)) != nil else { return false }
        try mapping.unmap()
        return (try? unregister(range)) == nil
    }

    /// A page at a random address: above what programs are linked to, below where the kernel places what is not asked for.
    ///
    /// Wherever the kernel likes in a program that has all of that: a sanitizer's shadow memory may lie there.
    private static func mapAnywhere() throws(UserfaultError) -> Mapping {
        let page = PageSize.base.bytes
        for _ in 0..<64 {
            let address = PageSize.base.roundDown(UInt.random(in: (1 << 34)..<(1 << 37)))
            do throws(UserfaultError) {
                return try Mapping(anonymous: page, protection: .none, placement: .at(address))
            } catch {
                guard error.errno == .fileExists else { throw error }
            }
        }
        return try Mapping(anonymous: page, protection: .none)
    }
}

/// An address that nobody can read from, for as long as this process lives.
private enum Unreadable {
    static let address: UInt = {
        let size = PageSize.base.bytes
        guard let mapping = try? Mapping(anonymous: size, protection: .none) else { return UInt(size) }
        return mapping.release().start
    }()
}

/// The id of the calling process: another one in a child of `fork`.
package var currentProcessID: Int32 { cuffd_getpid() }

/// Ends the calling process with `SIGKILL`.
package func killThisProcess() { cuffd_kill_self() }
