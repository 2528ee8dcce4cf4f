internal import UserfaultFD

// What happens when a page cannot be had, or is not of a region. Never on the way of an ordinary fault. Runs on every
// thread that serves or completes a request, and on the watchdog.

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
            record.count(.failures, in: claim.region)
            note(.failed(address: claim.range.start))
            killOwner()
            return .failed
        }
        var failed = pending
        failed.failures += 1
        switch claim.region.failure.verdict(afterAttempts: failed.failures) {
        case .retry(let nanoseconds):
            record.count(.retries, in: claim.region)
            giveBack(claim, of: memory)
            return again(failed, after: nanoseconds)
        case .end(let ending):
            return give(up: claim, ending, for: failed, of: memory, by: record)
        }
    }

    /// Lets a fault have another turn: after a time if its failure policy says so, and else when its memory may have changed.
    func again(_ pending: PendingFault, after nanoseconds: UInt64? = nil) -> Served {
        var later = pending
        later.due = nanoseconds.map { MonotonicInstant.now.nanoseconds &+ $0 } ?? 0
        later.attempts += 1
        return .later(later)
    }

    /// Leaves a fault to a thread that may wait for the source, at once.
    func leaveToLoader(_ pending: PendingFault) -> Served {
        var tried = pending
        tried.wasTried = true
        tried.due = 1
        return .later(tried)
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
        let options: UserfaultFD.PoisonOptions = ending == .killOwner ? .doNotWake : UserfaultFD.PoisonOptions()
        // `nil` as long as the kernel was not asked.
        var outcome: FillOutcome?
        let settlement = memory.sharingOrder { (uffd, machine) -> Settlement in
            // A page that was removed meanwhile is zeros, and nothing to fail.
            guard machine.isCurrent(first), !isPaused else {
                return Settlement(wake: machine.giveBack(first), next: .again)
            }
            let now = MonotonicInstant.now.nanoseconds
            if pending.mayBeForeign(at: now), !memory.isHolder(of: first) {
                return machine.settle(first, .noRange, at: 0)
            }
            let answer = FillOutcome.poisoning(lost.range, of: lost.region, lost.states, in: uffd, options: options)
            outcome = answer
            return machine.settle(lost, answer, at: MonotonicInstant.now.nanoseconds)
        }
        if let outcome { record.count(outcome, of: .poison, lost, isDemand: true) }
        if outcome == .done {
            record.count(.failures, in: lost.region)
            note(.failed(address: lost.range.start))
            if ending == .killOwner {
                killOwner()
                memory.wake(lost.range)
            }
        }
        if let range = settlement.wake { memory.wake(range) }
        switch settlement.next {
        case .gone: return .gone
        case .finished, .fill: return outcome == .done ? .failed : .done
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
            return unprotect(range, pending, of: memory, by: record)
        case .stray where pending.job != 0:
            // Nobody has faulted there.
            return .gone
        case .stray:
            return serveStray(pending, of: memory, by: record)
        case .refuse:
            return .gone
        }
    }

    func unprotect(
        _ range: AddressRange, _ pending: PendingFault, of memory: ServedMemory, by record: ThreadRecord
    ) -> Served {
        let outcome = memory.sharingOrder { (uffd, machine) -> FillOutcome in
            // Looked up here, where no region can go.
            let span = machine.spans.find(range.start)
            if pending.attempts == 0 {
                if let span { record.count(.writeProtect, in: span.region) } else { record.count(.writeProtect) }
            }
            if isPaused { return .changing }
            if let objection = uffd.objection(to: range, pending) { return objection }
            if pending.fault.kind == .readWriteProtect {
                return FillOutcome { () throws(UserfaultError) in try uffd.rwProtect(range, .unprotect) }
            }
            // Before the writer goes on: a look between would miss its write.
            if let span, let states = span.states {
                states.update(span.page(at: range.start)) { $0.union(.written).subtracting(.protected) }
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
            return again(failed, after: nanoseconds)
        }
    }
}

extension ThreadRecord {
    /// Counts an answer of the kernel.
    ///
    /// - Parameter isDemand: Whether a thread waits for the first page.
    @inline(__always)
    func count(_ outcome: FillOutcome, of filling: Filling, _ claim: Claim, isDemand: Bool) {
        let bytes: Int
        switch outcome {
        case .done: bytes = claim.range.count
        case .stopped(let after): bytes = after
        case .exists: return count(.alreadyMapped, in: claim.region)
        case .changing: return count(.changing, in: claim.region)
        case .noRange, .noPage, .processGone, .failed: return
        }
        let pages = bytes >> claim.region.pageShift
        switch filling {
        case .bytes: count(.copied, pages, in: claim.region)
        case .zeros: count(.zeroed, pages, in: claim.region)
        case .movable: count(.moved, pages, in: claim.region)
        case .file: count(.continued, pages, in: claim.region)
        case .poison: return count(.poisoned, pages, in: claim.region)
        }
        count(.bytes, bytes, in: claim.region)
        let ahead = pages - (isDemand ? 1 : 0)
        if ahead > 0 { count(.readAhead, ahead, in: claim.region) }
    }
}
