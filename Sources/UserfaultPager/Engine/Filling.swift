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

    /// Fills pages in hand: as far as the first call of the kernel goes that takes them.
    ///
    /// Afterwards it says what they were filled with: pages that cannot be moved are copied.
    ///
    /// - Parameter zeros: Zeros of this process, for where the kernel has no call for them.
    @inline(__always)
    mutating func fill(
        _ claim: Claim, of uffd: borrowing UserfaultFD, zeros: borrowing Mapping
    ) -> FillOutcome {
        let protected = claim.region.writeProtected
        switch self {
        case .bytes(let address):
            let options: UserfaultFD.CopyOptions = protected ? .writeProtect : []
            return FillOutcome { () throws(UserfaultError) in
                unsafe try uffd.copy(from: address, to: claim.range, options: options)
            }
        case .zeros where protected || claim.region.isHuge:
            let count = min(claim.range.count, zeros.count)
            let part = claim.prefix(pages: count >> claim.region.pageShift)
            var bytes = Filling.bytes(at: zeros.range.start)
            let outcome = bytes.fill(part, of: uffd, zeros: zeros)
            return outcome == .done && count < claim.range.count ? .stopped(after: count) : outcome
        case .zeros:
            return FillOutcome { () throws(UserfaultError) in try uffd.zeropage(claim.range) }
        case .movable(let address) where protected:
            self = .bytes(at: address)
            return fill(claim, of: uffd, zeros: zeros)
        case .movable(let address):
            let outcome = FillOutcome { () throws(UserfaultError) in try uffd.move(from: address, to: claim.range) }
            switch outcome {
            case .failed:
                // Pages that are shared or pinned, another process, memory that is not anonymous.
                self = .bytes(at: address)
                return fill(claim, of: uffd, zeros: zeros)
            case .noRange where claim.pages == 1:
                return moveHole(at: address, to: claim, of: uffd)
            default:
                return outcome
            }
        case .file:
            let options: UserfaultFD.ContinueOptions = protected ? .writeProtect : []
            return FillOutcome { () throws(UserfaultError) in try uffd.continue(claim.range, options: options) }
        case .poison:
            return FillOutcome { () throws(UserfaultError) in try uffd.poison(claim.range) }
        }
    }

    /// Tells a source page that is not there from a range that is gone, which the kernel answers alike.
    ///
    /// A copy of what is not there would be zeros.
    @inline(never)
    private func moveHole(at address: UInt, to claim: Claim, of uffd: borrowing UserfaultFD) -> FillOutcome {
        let outcome = FillOutcome { () throws(UserfaultError) in
            try uffd.move(from: address, to: claim.range, options: [.allowSourceHoles, .doNotWake])
        }
        return outcome == .done ? .failed : outcome
    }
}
