import CSelftestSupport
import Glibc
package import UserfaultFD

/// A forked child that does a list of steps, whose results the parent reads.
///
/// With `EVENT_FORK` the constructor returns only after another thread has read the event, see ``reported(by:_:)``.
package final class Child: @unchecked Sendable {
    /// One thing that the child does.
    ///
    /// Loads and stores survive signals.
    package enum Step: Sendable {
        /// Reads a byte. Result: the byte, or minus the signal.
        case load(UInt)
        /// Writes a byte. Result: 0, or minus the signal.
        case store(UInt, UInt8)
        /// Counts the bytes of a range that have this value. Result: the count, or minus the signal.
        case count(AddressRange, of: UInt8)
        /// Reads a page's pagemap entry. Result: the word as it is.
        case pagemap(UInt)
        /// Gives advice. Result: 0 or minus the errno.
        case advise(AddressRange, Advice)
        /// Unmaps. Result: 0 or minus the errno.
        case unmap(AddressRange)
        /// Moves a mapping to a fixed place. Result: the new address or minus the errno.
        case remap(AddressRange, to: UInt)
        /// Registers the child's own memory for missing faults of a userfaultfd of its own.
        /// Result: the descriptor, or minus the errno.
        case guardMemory(AddressRange, features: UserfaultFD.Features, kernelFaults: Bool)
        /// Has the kernel touch the parent's memory. Result: the bytes, or minus the errno.
        case access(KernelAccess, UInt, count: Int)
        /// Becomes another program, which sleeps. Result: minus the errno.
        case exec
        /// Dies of SIGABRT with a core dump.
        case abort
        /// Waits until the parent calls ``Child/resume()``.
        case pause
        /// Makes an ioctl of a descriptor, whose argument lies at an address. Result: 0 or minus the errno.
        case ioctl(Int32, request: UInt64, argument: UInt)
        /// Pins memory for reading, by writing it to an `O_DIRECT` file, or without one for as long as the child lives,
        /// by gup_test. Result: 0 or minus the errno.
        case pin(AddressRange, Int32?)
    }

    private let steps: UnsafeMutablePointer<css_step>
    private let count: Int
    private let child: css_child
    /// The child's own userfaultfd, which protects its memory for as long as it is open; see ``reported(by:_:)``.
    package internal(set) var descriptor: Handler.Descriptor?

    /// Forks the child.
    ///
    /// - Parameter sharesDescriptors: The child uses this process' descriptor table, not a copy of it.
    package init(_ list: [Step], sharesDescriptors: Bool = false) throws {
        count = list.count
        guard let steps = css_steps_create(count) else {
            throw CaseFailure(expected: "shared memory for the child's steps", seen: "none")
        }
        self.steps = steps
        for (index, step) in list.enumerated() { steps[index] = Self.encode(step) }
        var child = css_child()
        let answer = css_child_start(&child, steps, count, sharesDescriptors)
        self.child = child
        try expectEqual(answer, 0, "answer of fork")
    }

    private static func encode(_ step: Step) -> css_step {
        var code = css_step()
        func set(_ kind: css_step_kind, _ address: UInt, length: Int = 0, argument: UInt64 = 0) {
            code.kind = kind
            code.address = address
            code.length = UInt64(length)
            code.argument = argument
        }
        switch step {
        case .load(let address): set(css_step_load8, address)
        case .store(let address, let byte): set(css_step_store8, address, argument: UInt64(byte))
        case .count(let range, let byte): set(css_step_count8, range.start, length: range.count, argument: UInt64(byte))
        case .pagemap(let address): set(css_step_pagemap, address)
        case .advise(let range, let advice):
            set(css_step_madvise, range.start, length: range.count, argument: UInt64(advice.rawValue))
        case .unmap(let range): set(css_step_munmap, range.start, length: range.count)
        case .remap(let range, let target):
            set(css_step_mremap, range.start, length: range.count, argument: UInt64(target))
        case .pause: set(css_step_pause, 0)
        case .guardMemory(let range, let features, let kernelFaults):
            set(
                css_step_guard, range.start, length: range.count,
                argument: features.rawValue | (kernelFaults ? 1 << 63 : 0))
        case .access(let access, let address, let count):
            set(css_step_access, address, length: count, argument: UInt64(access.code.rawValue))
        case .exec: set(css_step_exec, 0)
        case .abort: set(css_step_abort, 0)
        case .ioctl(let descriptor, let request, let argument):
            set(css_step_ioctl, argument, length: Int(request), argument: UInt64(descriptor))
        case .pin(let range, let file):
            set(css_step_pin, range.start, length: range.count, argument: UInt64(bitPattern: Int64(file ?? -1)))
        }
        return code
    }

    package var processID: Int32 { child.pid }

    /// The result of a step, or `nil` where the child has not done it yet.
    package func result(_ index: Int) -> Int64? {
        guard steps[index].done != 0 else { return nil }
        return steps[index].result
    }

    /// The pagemap entry that a step has read.
    package func pagemap(_ index: Int) throws(CaseFailure) -> PagemapEntry {
        guard let word = result(index) else { throw CaseFailure(expected: "step \(index) done", seen: "not done") }
        return PagemapEntry(rawValue: UInt64(bitPattern: word))
    }

    /// Waits until the child has reached its next pause.
    package func waitPaused(file: String = #fileID, line: Int = #line) throws {
        let ready = try poll(child.reports, until: Deadline(after: .milliseconds(Self.patience)))
        var byte: UInt8 = 0
        let isHere = ready != 0 && read(child.reports, &byte, 1) == 1
        try expect(isHere, "the child pauses", seen: ready == 0 ? "it is stuck" : "it is gone", file: file, line: line)
    }

    /// Lets the child leave its pause.
    package func resume() throws {
        var byte: UInt8 = 0
        try expectEqual(write(child.orders, &byte, 1), 1, "bytes written to the child")
    }

    /// Waits until the child has done everything and is gone; answers the results of all steps.
    ///
    /// A child that is stuck is killed, and fails the case.
    @discardableResult
    package func finish(file: String = #fileID, line: Int = #line) throws -> [Int64] {
        let isGone = waitGone()
        if !isGone { Glibc.kill(child.pid, SIGKILL) }
        let status = reap()
        let done = (0..<count).prefix { steps[$0].done != 0 }.count
        try expect(
            isGone && done == count && status == 0, "the child does all its steps",
            seen: "\(isGone ? "wait status \(status)" : "it is stuck") after \(done) of \(count) steps", file: file,
            line: line)
        return (0..<count).map { steps[$0].result }
    }

    /// Kills the child, and waits until it is gone.
    package func kill(file: String = #fileID, line: Int = #line) throws {
        Glibc.kill(child.pid, SIGKILL)
        try expect(waitGone(), "the child dies of SIGKILL", seen: "it is stuck", file: file, line: line)
        _ = reap()
    }

    /// Whether the child has ended before patience does.
    private func waitGone() -> Bool {
        (try? Waiting.until("the child is gone") { css_has_ended(child.pid) }) != nil
    }

    private func reap() -> CInt {
        var status: CInt = 0
        var copy = child
        _ = css_child_wait(&copy, &status)
        return status
    }

    private static let patience = Waiting.milliseconds
}
