import CUserfaultFD
import Synchronization
import Testing
import UserfaultFD

/// Runs a body on a thread of its own, which may wait for pages without holding up the test's.
final class Toucher: Sendable {
    private let thread = Mutex<cuffd_thread_t?>(nil)

    private final class Box: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    init(_ body: @escaping @Sendable () -> Void) {
        let box = Unmanaged.passRetained(Box(body))
        var created: cuffd_thread_t = 0
        let answer = cuffd_thread_create(&created, "toucher", 0, Toucher.run, box.toOpaque())
        precondition(answer == 0, "no thread")
        thread.withLock { $0 = created }
    }

    private static let run: @convention(c) (UnsafeMutableRawPointer?) -> Void = { opaque in
        Unmanaged<Box>.fromOpaque(opaque!).takeRetainedValue().body()
    }

    /// Waits for its end: `false` where that takes too long.
    func join(seconds: Int32 = 20) -> Bool {
        thread.withLock { thread in
            guard let joined = thread else { return true }
            guard cuffd_thread_join(joined, seconds * 1000) == 0 else { return false }
            thread = nil
            return true
        }
    }

    /// The body's result, or `nil` where it takes too long.
    static func value<Value: Sendable>(_ body: @escaping @Sendable () -> Value) -> Value? {
        let result = Result<Value>()
        let toucher = Toucher { result.value.withLock { $0 = body() } }
        guard toucher.join() else { return nil }
        return result.value.withLock { $0 }
    }

    private final class Result<Value: Sendable>: Sendable {
        let value = Mutex<Value?>(nil)
    }
}

extension AddressRange {
    /// Loads a byte, on the calling thread.
    func load(_ offset: Int) -> UInt8 {
        UnsafeRawPointer(bitPattern: start + UInt(offset))!.load(as: UInt8.self)
    }

    /// Loads a word, on the calling thread.
    func loadWord(_ offset: Int) -> UInt64 {
        UnsafeRawPointer(bitPattern: start + UInt(offset))!.load(as: UInt64.self)
    }

    /// Stores a byte, on the calling thread.
    func store(_ byte: UInt8, at offset: Int) {
        UnsafeMutableRawPointer(bitPattern: start + UInt(offset))!.storeBytes(of: byte, as: UInt8.self)
    }
}
