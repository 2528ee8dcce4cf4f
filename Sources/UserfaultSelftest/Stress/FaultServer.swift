import Synchronization
import SystemPackage
import UserfaultFD

/// The threads that serve one area's missing and write-protect faults with another area's pages.
final class FaultServer: Sendable {
    /// What was served.
    struct Statistics: CustomStringConvertible {
        var missing = 0
        var writeProtect = 0
        var alreadyMapped = 0

        var description: String { "\(missing) missing, \(writeProtect) wp, \(alreadyMapped) already mapped" }
    }

    private let uffd: UserfaultFD
    private let area: Area
    private let source: Area
    private let polls: Bool
    private let isProtecting: Bool
    private let crew = Crew()
    private let missing = Atomic<Int>(0)
    private let writeProtect = Atomic<Int>(0)
    private let alreadyMapped = Atomic<Int>(0)
    /// Pages of their own that are touched when the threads shall stop: a blocked read ends with a message only.
    private let bell: Mapping

    init(_ area: Area, from source: Area, threads: Int, polls: Bool, isProtecting: Bool) throws {
        self.area = area
        self.source = source
        self.polls = polls
        self.isProtecting = isProtecting
        let features: UserfaultFD.Features =
            isProtecting && area.memory == .anon ? .writeProtectUnpopulated : []
        uffd = try UserfaultFD(features: features, options: .init(nonBlocking: polls))
        bell = try Mapping(anonymous: threads * PageSize.base.bytes)
        try uffd.register(bell.range, modes: .missing)
        try uffd.register(area.range, modes: isProtecting ? [.missing, .writeProtect] : .missing)
        if let aliasRange = Self.sharedAlias(area) { try uffd.register(aliasRange, modes: .missing) }
        for _ in 0..<threads { try crew.add("fault") { [self] in try serve() } }
    }

    /// The other mapping of a shared file: registered too, because a COPY may then go through it.
    private static func sharedAlias(_ area: Area) -> AddressRange? {
        guard !area.memory.isPrivate, let start = area.alias?.page(0).start else { return nil }
        return AddressRange(start: start, count: area.range.count)
    }

    /// Copies a page in from the source.
    ///
    /// A page that is there already is as good.
    func copy(_ page: Int) throws {
        let destination = area.page(page)
        let mode: UInt64 = isProtecting ? UserfaultFD.CopyOptions.writeProtect.rawValue : 0
        while true {
            let answer = uffd.raw(.copy, destination, source: source.address(page), mode: mode)
            switch answer {
            case .done(area.pageSize.bytes):
                try expectExists(page, mode)
                missing.add(1, ordering: .relaxed)
                return
            case .failed(.fileExists):
                try uffd.wake(destination)
                alreadyMapped.add(1, ordering: .relaxed)
                return
            case .failed(.resourceTemporarilyUnavailable):
                // Another thread has the mapping's lock for a moment (Linux 7.3).
                continue
            default:
                throw CaseFailure(expected: "COPY of page \(page): done or EEXIST", seen: "\(answer)")
            }
        }
    }

    /// The same COPY again, through the alias where the file is shared: nothing may happen but EEXIST.
    private func expectExists(_ page: Int, _ mode: UInt64) throws {
        let alias = area.memory.isPrivate ? nil : area.alias?.page(page)
        let range = alias ?? area.page(page)
        while true {
            let answer = uffd.raw(.copy, range, source: source.address(page), mode: alias == nil ? mode : 0)
            if answer == .failed(.resourceTemporarilyUnavailable) { continue }
            try expectEqual(answer, .failed(.fileExists), "COPY of page \(page) again")
            return
        }
    }

    /// Write-protects a slice while it is being filled.
    func protect(_ range: AddressRange) throws {
        try uffd.writeProtect(range, .protect)
    }

    private func serve() throws {
        var batch = EventBatch(capacity: 1)
        while true {
            if polls {
                if crew.shouldStop { return }
                guard try uffd.poll(timeout: .milliseconds(10)) else { continue }
            }
            try uffd.read(into: &batch)
            while let fault = batch.nextPageFault() {
                if bell.range.contains(fault.address) {
                    try uffd.zeropage(fault.page(size: .base))
                    return
                }
                try resolve(fault)
            }
        }
    }

    private func resolve(_ fault: PageFault) throws {
        let page = Int(fault.address - area.range.start) / area.pageSize.bytes
        switch fault.kind {
        case .missing:
            try copy(page)
        case .writeProtect:
            try uffd.writeProtect(area.page(page), .unprotect)
            writeProtect.add(1, ordering: .relaxed)
        case .minor, .readWriteProtect:
            throw CaseFailure(expected: "missing and write-protect faults only", seen: "\(fault)")
        }
    }

    /// Stops the threads, ends the registration, and answers what was served.
    func stop() throws -> Statistics {
        crew.stop()
        if !polls {
            for page in 0..<bell.pageCount { _ = try Touch.read(bell.page(page).start) }
        }
        try crew.join("the fault threads stop")
        if isProtecting { try uffd.writeProtect(area.range, .unprotect) }
        try uffd.unregister(area.range)
        if let aliasRange = Self.sharedAlias(area) { try uffd.unregister(aliasRange) }
        return Statistics(
            missing: missing.load(ordering: .relaxed), writeProtect: writeProtect.load(ordering: .relaxed),
            alreadyMapped: alreadyMapped.load(ordering: .relaxed))
    }
}
