internal import CUserfaultFD

/// Processors that a thread may run on.
package struct ProcessorSet {
    private var words = InlineArray<128, UInt64>(repeating: 0)

    /// Those that this process may use: where its first thread may run.
    package init() {
        var span = words.mutableSpan
        _ = unsafe span.withUnsafeMutableBufferPointer { unsafe cuffd_get_affinity($0.baseAddress!) }
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
