internal import CUserfaultFD

/// Processors that a thread may run on.
package struct ProcessorSet: Sendable {
    private var words = InlineArray<128, UInt64>(repeating: 0)

    /// Those that this process may use: those of the calling thread and of the first one, because either may have been
    /// restricted to fewer.
    package init() {
        var own = words
        for (var mask, thread) in [(words, 0), (words, cuffd_getpid())] {
            var span = mask.mutableSpan
            // On failure the mask stays empty, which adds nothing.
            _ = unsafe span.withUnsafeMutableBufferPointer { unsafe cuffd_get_affinity(thread, $0.baseAddress!) }
            for index in own.indices { own[index] |= mask[index] }
        }
        words = own
    }

    /// One processor; none if the kernel cannot have one of that number.
    package init(_ processor: Int) {
        guard words.indices.contains(processor >> 6) else { return }
        words[processor >> 6] = 1 << UInt64(processor & 63)
    }

    package func contains(_ processor: Int) -> Bool {
        words.indices.contains(processor >> 6) && words[processor >> 6] >> UInt64(processor & 63) & 1 == 1
    }

    package var count: Int { words.indices.reduce(0) { $0 + words[$1].nonzeroBitCount } }

    package var processors: [Int] { (0..<words.count << 6).filter(contains) }

    /// Restricts the calling thread to them; it stays as it is if none of them is online.
    package func keepCallingThread() {
        _ = unsafe words.span.withUnsafeBufferPointer { unsafe cuffd_set_affinity($0.baseAddress!) }
    }

    /// The processor that the calling thread is on.
    package static var current: Int { Int(cuffd_current_cpu()) }
}
