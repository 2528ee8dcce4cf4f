internal import SystemPackage
internal import UserfaultFD

// Poison, which asks the kernel at the same time whether a page is there. Runs on every thread that serves, and on the ones
// that stop pagers.

extension FillOutcome {
    /// Poisons pages.
    ///
    /// Past the end of a file that was cut there is nothing to be poisoned: whoever touches it gets `SIGBUS`.
    static func poisoning(
        _ range: AddressRange, in uffd: borrowing UserfaultFD, options: UserfaultFD.PoisonOptions = .init()
    ) -> FillOutcome {
        do throws(UserfaultError) {
            _ = try uffd.poison(range, options: options)
            return .done
        } catch {
            return error.errno == .badAddress ? .noRange : FillOutcome(error)
        }
    }

    /// Poisons pages of a region, in the order.
    ///
    /// A mark of write protection on a page that is not there answers as a page does: without the mark, the kernel tells
    /// which it is.
    ///
    /// - Parameter states: The state of the first page, if it has one of its own.
    static func poisoning(
        _ range: AddressRange, of region: RegionReference, _ states: PageStates?, in uffd: borrowing UserfaultFD,
        options: UserfaultFD.PoisonOptions = .init()
    ) -> FillOutcome {
        let answer = poisoning(range, in: uffd, options: options)
        guard answer == .exists, region.writeProtected else { return answer }
        let page = range.part(at: 0, count: region.pageSize.bytes)
        let removal = FillOutcome { () throws(UserfaultError) in
            try uffd.writeProtect(page, .unprotectWithoutWaking)
        }
        guard removal == .done else { return removal }
        switch poisoning(page, in: uffd, options: options) {
        case .done:
            return page.count < range.count ? .stopped(after: page.count) : .done
        case .exists:
            // Of what is written there from now on the kernel does not tell.
            _ = states?.update(0) { $0.union(.written).subtracting(.protected) }
            return .exists
        case let other:
            return other
        }
    }
}
