import CUserfaultFD
package import SystemPackage
package import UserfaultFD

/// What a call that fills pages did to its argument: the answer, and the output word.
///
/// The word is set to `untouched` before the call, so that a kernel that leaves it alone is told from one that writes.
package struct RawAnswer: Equatable, Sendable, CustomStringConvertible {
    /// 0, or the errno.
    package let errno: Int32
    /// The output word after the call.
    package let word: Int64

    /// What the word holds before each call: no count of bytes and no errno.
    package static let untouched: Int64 = 0x5EED_5EED_5EED

    package init(errno: Int32, word: Int64) {
        self.errno = errno
        self.word = word
    }

    /// All of it was done.
    package static func done(_ bytes: Int) -> RawAnswer { RawAnswer(errno: 0, word: Int64(bytes)) }
    /// Nothing was done, and the word says the same as the errno.
    package static func failed(_ errno: Errno) -> RawAnswer {
        RawAnswer(errno: errno.rawValue, word: -Int64(errno.rawValue))
    }
    /// The call was refused before the word is written.
    package static func refused(_ errno: Errno) -> RawAnswer { RawAnswer(errno: errno.rawValue, word: untouched) }
    /// The call stopped on its way.
    package static func partial(_ bytes: Int) -> RawAnswer {
        RawAnswer(errno: Errno.resourceTemporarilyUnavailable.rawValue, word: Int64(bytes))
    }

    /// Fails unless all of it was done.
    package func expectDone(_ bytes: Int, file: String = #fileID, line: Int = #line) throws(CaseFailure) {
        try expectEqual(self, .done(bytes), "answer of the call", file: file, line: line)
    }

    package var description: String {
        let answer = errno == 0 ? "0" : "errno \(errno) (\(Errno(rawValue: errno)))"
        return "\(answer), output word \(word == Self.untouched ? "untouched" : "\(word)")"
    }
}

/// A call that fills pages, in the kernel's own form.
package enum FillCall: String, CaseIterable, Sendable {
    case copy, zeropage, `continue`, poison, move

    package var request: UInt64 {
        switch self {
        case .copy: CUFFD_IOC_COPY
        case .zeropage: CUFFD_IOC_ZEROPAGE
        case .continue: CUFFD_IOC_CONTINUE
        case .poison: CUFFD_IOC_POISON
        case .move: CUFFD_IOC_MOVE
        }
    }

    /// What a kernel must offer to have the call.
    package var features: UserfaultFD.Features {
        switch self {
        case .copy, .zeropage: []
        case .continue: .minorShmem
        case .poison: .poison
        case .move: .move
        }
    }
}

extension UserfaultFD {
    /// Makes a call that fills pages with any numbers at all.
    ///
    /// - Parameters:
    ///   - source: For COPY and MOVE.
    ///   - mode: The mode word; bit 0 is DONTWAKE in all of them.
    package func raw(
        _ call: FillCall, start: UInt, count: Int, source: UInt = 0, mode: UInt64 = 0
    ) -> RawAnswer {
        withUnsafeDescriptor { descriptor in
            var answer: CInt = 0
            var word: Int64 = 0
            switch call {
            case .copy, .move:
                // Both arguments have the same form.
                var argument = cuffd_copy(
                    dst: UInt64(start), src: UInt64(source), len: UInt64(bitPattern: Int64(count)), mode: mode,
                    copy: RawAnswer.untouched)
                answer = cuffd_ioctl(descriptor.rawValue, call.request, &argument)
                word = argument.copy
            case .zeropage, .continue, .poison:
                var argument = cuffd_continue(
                    range: cuffd_range(start: UInt64(start), len: UInt64(bitPattern: Int64(count))), mode: mode,
                    mapped: RawAnswer.untouched)
                answer = cuffd_ioctl(descriptor.rawValue, call.request, &argument)
                word = argument.mapped
            }
            return RawAnswer(errno: -answer, word: word)
        }
    }

    /// Makes a call that fills a range of pages.
    package func raw(_ call: FillCall, _ range: AddressRange, source: UInt = 0, mode: UInt64 = 0) -> RawAnswer {
        raw(call, start: range.start, count: range.count, source: source, mode: mode)
    }

    /// Makes a call that fills a range of pages from prepared memory, which lives as long as the call.
    package func raw(
        _ call: FillCall, _ range: AddressRange, from source: borrowing Mapping, mode: UInt64 = 0
    ) -> RawAnswer {
        raw(call, range, source: source.range.start, mode: mode)
    }

    /// WAKE of a range.
    ///
    /// Answers 0 or the errno.
    package func rawWake(_ range: AddressRange) -> Int32 {
        withUnsafeDescriptor { -cuffd_wake($0.rawValue, UInt64(range.start), UInt64(range.count)) }
    }

    /// Makes any ioctl with any argument.
    ///
    /// Answers 0 or the errno.
    package func rawIoctl(_ request: UInt64, _ argument: UnsafeMutableRawPointer?) -> Int32 {
        withUnsafeDescriptor { -cuffd_ioctl($0.rawValue, request, argument) }
    }
}
