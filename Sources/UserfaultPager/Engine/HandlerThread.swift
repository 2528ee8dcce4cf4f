internal import CUserfaultFD
internal import Synchronization

/// A thread that belongs to no runtime: a page fault would block a cooperative one without anybody knowing.
struct HandlerThread: Sendable {
    private let thread: cuffd_thread_t

    /// Starts a thread with every signal blocked.
    ///
    /// - Parameters:
    ///   - name: Shown by the system's tools; at most 15 bytes.
    ///   - processor: The only processor it may run on, or `nil` for any.
    init(_ name: String, processor: Int?, _ body: @escaping @Sendable () -> Void) throws(PagerError) {
        let box = unsafe Unmanaged.passRetained(Box(processor: processor, body: body))
        var thread: cuffd_thread_t = 0
        let answer = unsafe cuffd_thread_create(&thread, name, 0, runBox, box.toOpaque())
        guard answer >= 0 else {
            unsafe box.release()
            throw .noThread(-answer)
        }
        self.thread = thread
    }

    /// Starts a thread that nobody waits for.
    static func detached(_ name: String, _ body: @escaping @Sendable () -> Void) throws(PagerError) {
        _ = cuffd_thread_detach(try HandlerThread(name, processor: nil, body).thread)
    }

    /// Waits for its end.
    ///
    /// Once.
    func join() { _ = cuffd_thread_join(thread, -1) }

    fileprivate final class Box: Sendable {
        let processor: Int?
        let body: @Sendable () -> Void

        init(processor: Int?, body: @escaping @Sendable () -> Void) {
            self.processor = processor
            self.body = body
        }
    }
}

/// What every thread runs.
///
/// A function of its own: a closure written where an actor is current would belong to it.
private func runBox(_ opaque: UnsafeMutableRawPointer?) {
    guard let opaque = unsafe opaque else { return }
    let box = unsafe Unmanaged<HandlerThread.Box>.fromOpaque(opaque).takeRetainedValue()
    if let processor = box.processor { ProcessorSet(processor).keepCallingThread() }
    box.body()
}
