internal import CUserfaultFD

/// Processors that a thread may run on.
package struct ProcessorSet {
    private var words = InlineArray<128, UInt64>(repeating: 0)

    /// Those that this process may use: wherever the calling thread or the first one may run, one of which may have been
    /// kept on fewer.
    package init() {
        var own = words
        for (var mask, thread) in [(words, 0), (words, cuffd_getpid())] {
            var span = mask.mutableSpan
            _ = unsafe span.withUnsafeMutableBufferPointer { unsafe cuffd_get_affinity(thread, $0.baseAddress!) }
            for index in own.indices { own[index] |= mask[index] }
        }
        words = own
    }

    package init(_ processor: Int) {
        guard words.indices.contains(processor >> 6) else { return }
        words[processor >> 6] = 1 << UInt64(processor & 63)
    }

    package func contains(_ processor: Int) -> Bool {
        words.indices.contains(processor >> 6) && words[processor >> 6] >> UInt64(processor & 63) & 1 == 1
    }

    package var count: Int { words.indices.reduce(0) { $0 + words[$1].nonzeroBitCount } }

    package var processors: [Int] { (0..<words.count << 6).filter(contains) }

    /// Keeps the calling thread on them.
    package func keepCallingThread() {
        _ = unsafe words.span.withUnsafeBufferPointer { unsafe cuffd_set_affinity($0.baseAddress!) }
    }
}
