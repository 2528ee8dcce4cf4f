#if Service
public import Logging
public import UserfaultPager

extension Logger {
    /// Logs a report of a pager; use it as the `report` of a `PagerConfiguration`.
    public func log(_ report: PagerReport) {
        switch report {
        case .stuck(let address, let nanoseconds):
            warning(
                "a page fault is still unresolved",
                metadata: ["address": .address(address), "milliseconds": "\(nanoseconds / 1_000_000)"])
        case .unread(let count):
            warning("no thread of the pager reads faults", metadata: ["faults": "\(count)"])
        case .selfDeadlock(let thread, let address):
            critical(
                "the page source touched memory that its own pager serves",
                metadata: ["thread": "\(thread)", "address": .address(address)])
        case .timedOut(let address):
            error("the page source takes too long", metadata: ["address": .address(address)])
        case .failed(let address):
            error("a page could not be loaded", metadata: ["address": .address(address)])
        case .ownerGone:
            notice("the process that owns the memory has ended")
        case .forkLost:
            error("a fork was not followed: the unloaded pages of its child are poisoned")
        case .forkWaits:
            error("a fork waits: this process has no descriptor free for the child (RLIMIT_NOFILE)")
        }
    }
}

extension Logger.MetadataValue {
    fileprivate static func address(_ address: UInt) -> Self { "0x\(String(address, radix: 16))" }
}
#endif
