internal import UserfaultFD

// Runs on whoever fills.

/// What is put into pages.
enum Filling {
    /// Bytes of this process, page by page.
    case bytes(at: UInt)
    case zeros
    /// Pages of this process that may be taken away.
    case movable(at: UInt)
    case file
    case poison

    /// What the pages after the first `count` bytes are filled with.
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
        _ claim: Claim, of uffd: borrowing UserfaultFD, zeros: ZeroMemory
    ) -> FillOutcome {
        let protected = claim.region.writeProtected
        switch self {
        case .bytes(let address):
            let options: UserfaultFD.CopyOptions = protected ? .writeProtect : UserfaultFD.CopyOptions()
            let outcome = FillOutcome { () throws(UserfaultError) in
                try uffd.copy(from: address, to: claim.range, options: options)
            }
            guard outcome == .exists, claim.region.isHuge else { return outcome }
            return Self.whetherHugePageExists(claim.prefix(pages: 1).range, protected: protected, of: uffd)
        case .zeros where protected || claim.region.isHuge:
            let zeroRange = zeros.range
            let count = min(claim.range.count, zeroRange.count)
            let part = claim.prefix(pages: count >> claim.region.pageShift)
            var bytes = Filling.bytes(at: zeroRange.start)
            let outcome = bytes.fill(part, of: uffd, zeros: zeros)
            return outcome == .done && count < claim.range.count ? .stopped(after: count) : outcome
        case .zeros:
            return FillOutcome { () throws(UserfaultError) in try uffd.zeropage(claim.range) }
        case .movable(let address) where protected:
            self = .bytes(at: address)
            return fill(claim, of: uffd, zeros: zeros)
        case .movable(let address):
            do throws(UserfaultError) {
                unsafe try uffd.move(from: address, to: claim.range)
                return .done
            } catch  where error.reason == .noSourcePage {
                // A copy of what is not there would be zeros. Of several pages, each is tried by itself.
                return claim.pages == 1 ? .failed : .noRange
            } catch {
                let outcome = FillOutcome(error)
                guard outcome == .failed else { return outcome }
                // Pages that are shared or pinned, another process, memory that is not anonymous.
                self = .bytes(at: address)
                return fill(claim, of: uffd, zeros: zeros)
            }
        case .file:
            let options: UserfaultFD.ContinueOptions = protected ? .writeProtect : UserfaultFD.ContinueOptions()
            return FillOutcome { () throws(UserfaultError) in try uffd.continue(claim.range, options: options) }
        case .poison:
            return FillOutcome.poisoning(claim.range, of: claim.region, claim.states, in: uffd)
        }
    }

    /// What `EEXIST` means for a huge page: since Linux 6.18 a copy also answers so where the pool is empty.
    ///
    /// A page that the file has can be mapped. Else the fill failed, whether the page is there or not: what follows at the end of
    /// all attempts is poison, which takes no page that is there. Where the file has a page it would, if that is not mapped.
    ///
    /// - Parameter protected: Whether what is mapped is to be write-protected.
    @inline(never)
    static func whetherHugePageExists(
        _ page: AddressRange, protected: Bool, of uffd: borrowing UserfaultFD
    ) -> FillOutcome {
        // Kernels without poison have another answer for an empty pool.
        guard uffd.supportedFeatures.contains(.poison) else { return .exists }
        let options: UserfaultFD.ContinueOptions = protected ? .writeProtect : UserfaultFD.ContinueOptions()
        let outcome = FillOutcome { () throws(UserfaultError) in try uffd.continue(page, options: options) }
        switch outcome {
        case .done: return .exists
        case .noPage: return .failed
        case .stopped, .exists, .changing, .noRange, .processGone, .failed: return outcome
        }
    }
}
