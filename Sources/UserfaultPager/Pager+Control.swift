internal import UserfaultFD

extension Pager where Source: ~Copyable {
    /// Changes what happens to faults outside of every region, from ``PagerConfiguration/strays``.
    ///
    /// Threads that wait for a region to come are served as the new policy says.
    ///
    /// - Throws: ``PagerError/notRunning`` if the pager was stopped; ``PagerError/configuration(_:)`` for
    ///   ``StrayPolicy/wait`` and ``StrayPolicy/ask(_:)`` if threads serve their own faults.
    public func setStrayPolicy(_ policy: StrayPolicy) throws(PagerError) {
        try core.whileOpen { () throws(PagerError) in try core.setStrayPolicy(policy) }
    }

    /// Changes no page from now on: whoever faults waits until ``resume()``.
    ///
    /// When this returns, no page is filled, poisoned or released for writing any more. Calls of the source that are under
    /// way are not waited for, and the pages that they bring are dropped. Afterwards they are asked for again if a thread
    /// waits for them or they are populated; pages that were loaded ahead are asked for when they are touched. Forks and
    /// changes of the address space are followed meanwhile. ``populate(_:within:)`` waits too, and so does
    /// ``remove(_:_:within:)`` if it loads.
    /// Stopping ends the pause.
    ///
    /// - Throws: ``PagerError/notRunning`` if the pager was stopped, or is being stopped.
    public func pause() throws(PagerError) {
        try core.whileOpen { () throws(PagerError) in try core.pause() }
    }

    /// Goes on after ``pause()``.
    ///
    /// - Throws: ``PagerError/notRunning`` if the pager was stopped.
    public func resume() throws(PagerError) {
        try core.whileOpen { () throws(PagerError) in core.resume() }
    }
}
