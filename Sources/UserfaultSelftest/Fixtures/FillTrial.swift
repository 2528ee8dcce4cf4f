import Glibc
package import UserfaultFD

/// An area on which any of the fill calls can be made alike: what each of them needs is there.
package final class FillTrial: Sendable {
    package let call: FillCall
    package let area: Area
    package let uffd: UserfaultFD
    /// What COPY copies from: a page for each of the area's.
    private let source: Mapping

    /// The seed of what COPY brings; what CONTINUE maps is in the file with the same.
    package static let seed: UInt8 = 8

    /// An area with a file offset, registered, whose file has pages if the call is CONTINUE, and none otherwise.
    package init(
        _ call: FillCall, _ context: CaseContext, pages: Int = 4, modes: UserfaultFD.RegisterModes? = nil,
        features: UserfaultFD.Features = []
    ) throws {
        self.call = call
        area = try Area(context, pages: pages, offset: 3)
        uffd = try UserfaultFD(features: features)
        try uffd.register(area.range, modes: modes ?? (area.isMinor(for: call) ? .minor : .missing))
        source = try area.source(0..<pages, seed: Self.seed)
        if area.isMinor(for: call) { try area.fillFile(seed: Self.seed) }
        // Like the area, until the process ends: threads may wait for the descriptor.
        _ = Unmanaged.passRetained(self)
    }

    /// Gives the area's pages back, so that a next trial in the same process can have them.
    package func end() {
        try? area.zapView()
        try? area.file?.resize(to: 0)
    }

    /// Makes the call for pages of the area.
    package func fill(_ pages: Range<Int>, mode: UInt64 = 0) -> RawAnswer {
        fill(start: area.address(0) + UInt(pages.lowerBound * area.pageSize.bytes), pages.count, mode: mode)
    }

    /// Makes the call for so many pages from an address on.
    package func fill(start: UInt, _ pages: Int, mode: UInt64 = 0) -> RawAnswer {
        fill(start: start, count: pages * area.pageSize.bytes, mode: mode)
    }

    /// Makes the call with any numbers.
    ///
    /// COPY's source is the page that belongs at the address, where there is one.
    package func fill(start: UInt, count: Int, mode: UInt64 = 0) -> RawAnswer {
        let offset = area.range.contains(start) ? start - area.range.start : 0
        return uffd.raw(call, start: start, count: count, source: source.range.start + offset, mode: mode)
    }

    /// Bytes of so many pages, as the output word of a success.
    package func done(_ pages: Int) -> RawAnswer { .done(pages * area.pageSize.bytes) }

    /// What the first fault on a page of the area says.
    package func faultFlags(isWrite: Bool = false) -> PageFault.Flags {
        let kind: PageFault.Flags = area.isMinor(for: call) ? .minor : []
        return isWrite ? kind.union(.write) : kind
    }

    /// Starts a thread that reads a page, and waits until it is asleep and its message is read.
    package func blockedReader(_ page: Int, file: String = #fileID, line: Int = #line) throws -> Touch {
        let touch = try Touch.read(area.address(page))
        try uffd.expectFault(at: area.address(page), faultFlags(), file: file, line: line)
        try touch.thread.waitAsleep(file: file, line: line)
        return touch
    }

    /// Waits until a reader of a filled page goes on, and fails unless it saw what the call puts there.
    package func finish(_ touch: Touch, page: Int, file: String = #fileID, line: Int = #line) throws {
        let outcome = try touch.finish(file: file, line: line)
        let isRight =
            switch (call, outcome) {
            case (.poison, .signal): outcome.signal == SIGBUS
            case (.zeropage, .byte(0)): true
            case (.copy, .byte(let byte)), (.continue, .byte(let byte)):
                byte == Pattern.byte(seed: Self.seed, page: page)
            default: false
            }
        try expect(
            isRight, "the reader of page \(page) sees what \(call) puts there", seen: "\(outcome)", file: file,
            line: line)
    }

    /// Fails unless a page of the view is what the call makes it.
    ///
    /// The page must be mapped.
    package func expectFilled(_ pages: Range<Int>, file: String = #fileID, line: Int = #line) throws {
        for page in pages {
            switch call {
            case .poison:
                let outcome = Touch.load(area.address(page))
                try expectEqual(outcome.signal, SIGBUS, "signal from poisoned page \(page)", file: file, line: line)
            case .zeropage: try area.expectZeroView(page, file: file, line: line)
            default: try area.expectView(page, seed: Self.seed, file: file, line: line)
            }
        }
    }
}

extension Area {
    /// Whether a call resolves minor faults here, and not missing ones.
    fileprivate func isMinor(for call: FillCall) -> Bool { call == .continue && file != nil }
}

extension FillCall {
    /// The calls that fill, except MOVE, which takes its page from another place of the same memory.
    package static let fills: [FillCall] = [.copy, .zeropage, .continue, .poison]

    /// Those of them that this kernel has.
    package static func offered() throws -> [FillCall] {
        let features = try UserfaultFD().supportedFeatures
        return fills.filter { features.isSuperset(of: $0.features) }
    }

    /// Those of them that this kernel has and that can fill memory of a type.
    package static func working(on memory: MemoryType) throws -> [FillCall] {
        try offered().filter { $0.works(on: memory) }
    }

    /// Whether the call can fill memory of a type.
    package func works(on memory: MemoryType) -> Bool {
        switch self {
        case .copy, .poison: true
        case .zeropage: !memory.isHugetlb
        case .continue: memory != .anon
        case .move: memory == .anon
        }
    }
}
