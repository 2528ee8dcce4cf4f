internal import CUserfaultFD
internal import Synchronization
internal import SystemPackage

// What a descriptor is, found out by asking it for nothing: without /proc, and without a descriptor to spare.

extension UserfaultFD {
    /// Whether the process whose memory this is has exited or executed another program.
    ///
    /// The kernel does not report that by itself: `poll` stays silent. Asks for a copy from a page that cannot be read,
    /// which fails whatever is at the other end, and for a process that is gone with `ESRCH`. Costs one system call and
    /// changes nothing. The corresponding ioctl is `UFFDIO_COPY`.
    public var isProcessGone: Bool {
        copyNothing(to: Unreadable.page) == .noSuchProcess
    }

    /// Whether the kernel object is negotiated, which another descriptor of it may have seen to.
    ///
    /// Waking threads that wait for a page that nobody can have answers `EINVAL` before negotiation, and else succeeds.
    static func isNegotiated(_ rawDescriptor: CInt) -> Bool {
        wakeNobody(rawDescriptor) == nil
    }

    /// - Returns: `nil` if it is a negotiated userfaultfd, `EINVAL` for one that is not negotiated, `ENOTTY` for other
    ///   files, `EBADF` if it is not open.
    static func wakeNobody(_ rawDescriptor: CInt) -> Errno? {
        let page = Unreadable.page
        let answer = cuffd_wake(rawDescriptor, UInt64(page.start), UInt64(page.count))
        return answer < 0 ? Errno(rawValue: -answer) : nil
    }

    /// Asks for a copy that cannot be made.
    func copyNothing(to range: AddressRange, options: CopyOptions = .init()) -> Errno {
        var bytes: Int64 = 0
        let answer = unsafe cuffd_copy(
            descriptor.rawValue, UInt64(range.start), UInt64(Unreadable.page.start), UInt64(range.count),
            options.rawValue, &bytes)
        return Errno(rawValue: -answer)
    }

    /// What else is known of a failure, because one number means different things.
    ///
    /// - Parameters:
    ///   - range: What the call was about.
    ///   - needed: The features of which the call needs at least one; empty if every kernel has the call.
    ///   - lacking: Whether the kernel does not have what was asked for, given its features.
    @inline(never)
    func explain(
        _ errno: Errno, of operation: UserfaultError.Operation, _ range: AddressRange,
        needing needed: Features = .init(), lacking: (Features) -> Bool = { _ in false }
    ) -> UserfaultError.Circumstance {
        switch errno {
        case .invalidArgument:
            if !isNegotiated && !Self.isNegotiated(descriptor.rawValue) { return .notNegotiated }
            let known = isNegotiated && knowsAllFeatures ? supportedFeatures : Self.kernelFeatures
            guard let features = known else { return .none }
            if !needed.isEmpty && features.isDisjoint(with: needed) || lacking(features) { return .kernelLacksIt }
            return .none
        case .noSuchFileOrDirectory where operation == .move:
            // The kernel answers alike if either side is not there. The first page of the destination tells which.
            let page = AddressRange(start: range.start, count: min(range.count, PageSize.base.bytes))
            let answer = copyNothing(to: page)
            return answer == .badAddress || answer == .fileExists ? .noSourcePage : .none
        case .fileExists where operation == .copy && range.mayBeHuge:
            return .poolMayBeEmpty
        default:
            return .none
        }
    }

    /// Every feature that this kernel has, or `nil` if no descriptor can be opened to ask it.
    static var kernelFeatures: Features? {
        // Asked once: a kernel does not change. No kernel that this library supports is without features.
        let known = Features(rawValue: answeredFeatures.load(ordering: .relaxed))
        guard known.isEmpty else { return known }
        guard let features = (try? UserfaultFD())?.supportedFeatures else { return nil }
        answeredFeatures.store(features.rawValue, ordering: .relaxed)
        return features
    }
}

private let answeredFeatures = Atomic<UInt64>(0)

/// A page of this process that nobody can read, for as long as it lives.
private enum Unreadable {
    // Another process may have registered a page of this number. A thread of it that waits there looks again if it is
    // woken, which does no harm.
    static let page: AddressRange = {
        let size = PageSize.base.bytes
        guard let mapping = try? Mapping(anonymous: size, protection: .none) else {
            // Without address space for one page: below every mapping, and above what no program may map.
            return AddressRange(start: UInt(max(size, 1 << 20)), count: size)
        }
        return mapping.release()
    }()
}

extension AddressRange {
    /// Whether the range could be one of hugetlbfs: whole pages of the smallest huge page that there is.
    fileprivate var mayBeHuge: Bool {
        #if arch(x86_64)
        let smallest = PageSize.twoMiB
        #else
        let smallest = PageSize.base.bytes >= 65536 ? PageSize.twoMiB : PageSize.sixtyFourKiB
        #endif
        return isAligned(to: smallest)
    }
}
