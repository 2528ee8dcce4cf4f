import UserfaultPager

extension Pager where Source: ~Copyable {
    /// The statistics once no thread has a page in hand.
    ///
    /// A thread that waits for a page goes on before its fault is counted.
    var settledStatistics: PagerStatistics {
        wait { statistics.outstanding == 0 }
        return statistics
    }
}
