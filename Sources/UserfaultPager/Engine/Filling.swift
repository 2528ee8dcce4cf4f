internal import UserfaultFD

/// What is put into pages.
enum Filling {
    /// Bytes of this process, page by page.
    case bytes(at: UInt)
    case zeros
    /// Pages of this process that may be taken away.
    case movable(at: UInt)
    case file
    case poison

    /// What the pages behind the first `count` bytes are filled with.
    func dropFirst(_ count: Int) -> Filling {
        switch self {
        case .bytes(let address): .bytes(at: address &+ UInt(count))
        case .movable(let address): .movable(at: address &+ UInt(count))
        case .zeros, .file, .poison: self
        }
    }

    /// Fills pages in hand, in one call of the kernel.
    ///
    /// - Parameters:
    ///   - waking: Whether to wake those who wait.
    ///   - zeros: Zeros of this process, for where the kernel has no call for them.
    @inline(__always)
    func fill(
        _ claim: Claim, of uffd: borrowing UserfaultFD, waking: Bool = true, zeros: borrowing Mapping
    ) -> FillOutcome {
        let protected = claim.region.writeProtected
        switch self {
        case .bytes(let address):
            var options: UserfaultFD.CopyOptions = protected ? .writeProtect : []
            if !waking { options.insert(.doNotWake) }
            return FillOutcome { () throws(UserfaultError) in
                unsafe try uffd.copy(from: address, to: claim.range, options: options)
            }
        case .zeros where protected || claim.region.isHuge:
            let count = min(claim.range.count, zeros.count)
            let part = claim.prefix(pages: count >> claim.region.pageShift)
            let outcome = Filling.bytes(at: zeros.range.start).fill(part, of: uffd, waking: waking, zeros: zeros)
            return outcome == .done && count < claim.range.count ? .stopped(after: count) : outcome
        case .zeros:
            return FillOutcome { () throws(UserfaultError) in
                try uffd.zeropage(claim.range, options: waking ? [] : .doNotWake)
            }
        case .movable(let address) where protected:
            return Filling.bytes(at: address).fill(claim, of: uffd, waking: waking, zeros: zeros)
        case .movable(let address):
            let outcome = FillOutcome { () throws(UserfaultError) in
                try uffd.move(from: address, to: claim.range, options: waking ? [] : .doNotWake)
            }
            // Pages that are shared or pinned, another process, memory that is not anonymous.
            guard outcome == .failed else { return outcome }
            return Filling.bytes(at: address).fill(claim, of: uffd, waking: waking, zeros: zeros)
        case .file:
            var options: UserfaultFD.ContinueOptions = protected ? .writeProtect : []
            if !waking { options.insert(.doNotWake) }
            return FillOutcome { () throws(UserfaultError) in try uffd.continue(claim.range, options: options) }
        case .poison:
            return FillOutcome { () throws(UserfaultError) in
                try uffd.poison(claim.range, options: waking ? [] : .doNotWake)
            }
        }
    }
}
