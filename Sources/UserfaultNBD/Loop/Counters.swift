#if NBD
internal import Synchronization

/// What is counted, by the source's thread and those that hand requests in.
struct Counters: ~Copyable, Sendable {
    let requests = Atomic<Int>(0)
    let failures = Atomic<Int>(0)
    let reads = Atomic<Int>(0)
    let bytesRead = Atomic<Int>(0)
    let bytesInHoles = Atomic<Int>(0)
    let connections = Atomic<Int>(0)
    let peakMemory = Atomic<Int>(0)

    var snapshot: NBDStatistics {
        NBDStatistics(
            requests: requests.load(ordering: .relaxed), failures: failures.load(ordering: .relaxed),
            reads: reads.load(ordering: .relaxed), bytesRead: bytesRead.load(ordering: .relaxed),
            bytesInHoles: bytesInHoles.load(ordering: .relaxed), connections: connections.load(ordering: .relaxed),
            peakMemory: peakMemory.load(ordering: .relaxed))
    }
}
#endif
