import Synchronization
import Testing
import UserfaultFD

/// Runs a body on a thread of its own, which may wait for pages without holding up the test's.
final class Toucher: Sendable {
    private let thread = Mutex<NativeThread?>(nil)

    init(_ body: @escaping @Sendable () -> Void) {
        do {
            let started = try NativeThread("toucher", body)
            thread.withLock { $0 = started }
        } catch {
            fatalError("no thread: \(error)")
        }
    }

    /// Waits for its end: `false` where that takes too long.
    func join(seconds: Int32 = 20) -> Bool {
        thread.withLock { thread in
            guard let joined = thread else { return true }
            guard joined.join(until: Deadline(after: .seconds(seconds))) else { return false }
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
