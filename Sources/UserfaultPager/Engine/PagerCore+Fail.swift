internal import UserfaultFD

// What happens when a page cannot be had, or is not of a region. Never on the way of an ordinary fault. Runs on every
// thread that serves, and on the watchdog.

extension PagerCore where Source: ~Copyable {
    /// Does what the region's policy says of a page in hand that could not be loaded or filled.
    @inline(never)
    func fail(
        _ claim: Claim, _ pending: PendingFault, of memory: ServedMemory, by record: ThreadRecord
    ) -> Served {
        guard claim.isAwaited, claim.content != .poison else {
            giveBack(claim, of: memory)
            guard claim.content == .poison else { return .failed }
            // Not even poison took, and nobody may see zeros: the program must not go on.
            record.count(.failures)
            note(.failed(address: claim.range.start))
            killOwner()
            return .failed
        }
        var failed = pending
        failed.failures += 1
        switch claim.region.failure.verdict(afterAttempts: failed.failures) {
        case .retry(let nanoseconds):
            record.count(.retries)
            giveBack(claim, of: memory)
            failed.due = MonotonicInstant.now.nanoseconds &+ nanoseconds
            return again(failed)
        case .end(let ending):
            return give(up: claim, ending, for: failed, of: memory, by: record)
        }
    }

    /// Lets a fault have another turn.
    func again(_ pending: PendingFault) -> Served {
        var later = pending
        later.attempts += 1
        return .later(later)
    }

    /// Poisons a page that is given up, which asks the kernel at the same time whether it is there after all.
    ///
    /// Only where it was not, the failure is reported, and the owner is killed if the policy says so.
    func give(
        up claim: Claim, _ ending: FailurePolicy.Ending, for pending: PendingFault, of memory: ServedMemory,
        by record: ThreadRecord
    ) -> Served {
        let first = claim.prefix(pages: 1)
        var lost = first
        lost.content = .poison
        // Who is to be killed does not go on before.
        let options: UserfaultFD.PoisonOptions = ending == .killOwner ? .doNotWake : []
        var outcome = FillOutcome.changing
        let settlement = memory.sharingOrder { (uffd, machine) -> Settlement in
            // A page that was removed meanwhile is zeros, and nothing to fail.
            guard machine.isCurrent(first), !memory.isPaused else {
                return Settlement(wake: machine.giveBack(first), next: .again)
            }
            outcome = FillOutcome { () throws(UserfaultError) in try uffd.poison(lost.range, options: options) }
            return machine.settle(lost, outcome, at: MonotonicInstant.now.nanoseconds)
        }
        record.count(outcome, of: .poison, lost)
        if outcome == .done {
            record.count(.failures)
            note(.failed(address: lost.range.start))
            if ending == .killOwner {
                killOwner()
                memory.wake(lost.range)
            }
        }
        if let range = settlement.wake { memory.wake(range) }
        switch settlement.next {
        case .finished, .gone, .fill: return outcome == .done ? .failed : .done
        case .again: return again(pending)
        case .held: return hold(pending, of: memory)
        case .ended: return .ended
        case .failed(let claim): return fail(claim, pending, of: memory, by: record)
        }
    }

    /// Serves what is not a missing page.
    @inline(never)
    func serveSpecially(
        _ order: Order, _ pending: PendingFault, of memory: ServedMemory, by record: ThreadRecord
    ) -> Served {
        switch order {
        case .fill:
            return .done
        case .leave:
            return .left
        case .hold:
            return hold(pending, of: memory)
        case .wake(let range):
            memory.wake(range)
            return .done
        case .unprotect(let range):
            if pending.attempts == 0 { record.count(.writeProtect) }
            return unprotect(range, pending, of: memory)
        case .stray:
            return serveStray(pending, of: memory, by: record)
        }
    }

    func unprotect(_ range: AddressRange, _ pending: PendingFault, of memory: ServedMemory) -> Served {
        let outcome = memory.sharingOrder { (uffd, machine) -> FillOutcome in
            if memory.isPaused { return .changing }
            if pending.fault.kind == .readWriteProtect {
                return FillOutcome { () throws(UserfaultError) in try uffd.rwProtect(range, .unprotect) }
            }
            // Looked up here, where no region can go. Before the writer goes on: a look between would miss its write.
            if let span = machine.spans.find(range.start), let states = span.states {
                states.update(span.page(at: range.start)) { $0.union(.written) }
            }
            return FillOutcome { () throws(UserfaultError) in try uffd.writeProtect(range, .unprotect) }
        }
        return follow(outcome, pending, range, of: memory)
    }

    func follow(
        _ outcome: FillOutcome, _ pending: PendingFault, _ range: AddressRange, of memory: ServedMemory
    ) -> Served {
        switch outcome {
        case .done: return .done
        case .changing: return again(pending)
        case .processGone: return .ended
        case .exists, .noRange, .stopped:
            memory.wake(range)
            return .done
        case .failed, .noPage:
            var failed = pending
            failed.failures += 1
            guard case .retry(let nanoseconds) = FailurePolicy().verdict(afterAttempts: failed.failures) else {
                killOwner()
                return .failed
            }
            failed.due = MonotonicInstant.now.nanoseconds &+ nanoseconds
            return again(failed)
        }
    }
}

extension ThreadRecord {
    /// Counts an answer of the kernel.
    @inline(__always)
    func count(_ outcome: FillOutcome, of filling: Filling, _ claim: Claim) {
        let bytes: Int
        switch outcome {
        case .done: bytes = claim.range.count
        case .stopped(let after): bytes = after
        case .exists: return count(.alreadyMapped)
        case .changing: return count(.changing)
        case .noRange, .noPage, .processGone, .failed: return
        }
        let pages = bytes >> claim.region.pageShift
        switch filling {
        case .bytes: count(.copied, pages)
        case .zeros: count(.zeroed, pages)
        case .movable: count(.moved, pages)
        case .file: count(.continued, pages)
        case .poison: return count(.poisoned, pages)
        }
        count(.bytes, bytes)
        let ahead = pages - (claim.isAwaited ? 1 : 0)
        if ahead > 0 { count(.readAhead, ahead) }
    }
}
