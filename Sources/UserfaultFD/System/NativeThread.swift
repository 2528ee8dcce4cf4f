internal import CUserfaultFD
internal import SystemPackage

/// A thread that belongs to no runtime: a page fault would block a cooperative one without the runtime knowing.
///
/// Every signal that others can send is blocked in it, so that it never runs a handler of the program it serves.
package struct NativeThread: Sendable {
    private let thread: cuffd_thread_t

    /// Starts a thread, which must be joined or detached once.
    ///
    /// - Parameters:
    ///   - name: Shown by the system's tools; cut to 15 bytes.
    ///   - stackSize: Address space for the stack, in bytes; 0 for the default.
    ///   - processors: The processors it may run on, or `nil` for those of the thread that starts it.
    ///   - body: What it runs.
    /// - Throws: ``UserfaultError`` of ``UserfaultError/Operation/createThread``: `EAGAIN` at a limit of the number of
    ///   threads, `ENOMEM` without memory or address space.
    package init(
        _ name: String, stackSize: Int = 0, processors: ProcessorSet? = nil, _ body: @escaping @Sendable () -> Void
    ) throws(UserfaultError) {
        let box = unsafe Unmanaged.passRetained(Box(processors: processors, body: body))
        var thread: cuffd_thread_t = 0
        do throws(UserfaultError) {
            _ = try answer(to: .createThread) {
                unsafe cuffd_thread_create(&thread, name, stackSize, runBox, box.toOpaque())
            }
        } catch {
            unsafe box.release()
            throw error
        }
        self.thread = thread
    }

    /// Starts a thread that nobody joins.
    package static func detached(_ name: String, _ body: @escaping @Sendable () -> Void) throws(UserfaultError) {
        _ = cuffd_thread_detach(try NativeThread(name, body).thread)
    }

    /// Has nobody join the thread: its resources go with its end.
    package func detach() { _ = cuffd_thread_detach(thread) }

    /// Waits for the thread's end.
    ///
    /// - Returns: `false` if it has not ended by the deadline, or is the thread that calls; it may then be joined again.
    @discardableResult
    package func join(until deadline: Deadline = .never) -> Bool {
        while true {
            // In pieces: the call counts by a clock that may be set back.
            let answer = cuffd_thread_join(thread, deadline.isNever ? -1 : min(deadline.remainingMilliseconds, 1000))
            if answer == -Errno.deadlock.rawValue { return false }
            if answer != -Errno.timedOut.rawValue { return true }
            if deadline.hasPassed { return false }
        }
    }

    /// The kernel's id of the calling thread.
    package static var currentID: Int32 { cuffd_gettid() }

    /// Lets another thread of this processor run.
    package static func yield() { _ = cuffd_sched_yield() }

    fileprivate final class Box: Sendable {
        let processors: ProcessorSet?
        let body: @Sendable () -> Void

        init(processors: ProcessorSet?, body: @escaping @Sendable () -> Void) {
            self.processors = processors
            self.body = body
        }
    }
}

/// What every thread runs.
///
/// A function of its own: a closure that is written where an actor is current would belong to that actor.
private func runBox(_ opaque: UnsafeMutableRawPointer?) {
    guard let opaque = unsafe opaque else { return }
    let box = unsafe Unmanaged<NativeThread.Box>.fromOpaque(opaque).takeRetainedValue()
    box.processors?.keepCallingThread()
    box.body()
}
