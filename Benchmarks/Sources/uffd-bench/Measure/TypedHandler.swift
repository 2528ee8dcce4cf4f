import CBenchBaseline
import Glibc
import Synchronization
import SystemPackage
import UserfaultFD

/// What a handler does, in whichever language.
struct HandlerRequest: Sendable {
    enum Waiting: String, CaseIterable, Sendable { case poll, block, spin, adaptive }
    enum Call: String, CaseIterable, Sendable { case copy, `continue`, zeropage, unprotect }

    var waiting: Waiting
    var call: Call
    /// Messages for one read.
    var batch = 1
    var range: AddressRange
    /// Where pages come from, for COPY.
    var source: UInt = 0
    var pageSize: PageSize = .base
    /// Bytes to fill for one fault.
    var window = PageSize.base.bytes
    /// As long as the pager looks unless it is told otherwise.
    var spinLimit: UInt64 = 100_000
    /// Where the handler is kept; anywhere without one.
    var processor: Int?
}

/// The fault loop in Swift over the typed layer: the twin of `cbb_serve`, line for line.
enum TypedHandler {
    static func serve(
        _ uffd: borrowing UserfaultFD, _ request: HandlerRequest, stop: Int32, stopped: borrowing Atomic<Bool>
    ) throws(UserfaultError) {
        var batch = EventBatch(capacity: request.batch)
        var idleSince: UInt64 = 0
        var polls = request.waiting == .poll
        while true {
            if polls {
                let stopping = uffd.withUnsafeDescriptor { descriptor in
                    var entries = (
                        pollfd(fd: descriptor.rawValue, events: Int16(POLLIN), revents: 0),
                        pollfd(fd: stop, events: Int16(POLLIN), revents: 0)
                    )
                    let count = withUnsafeMutableBytes(of: &entries) {
                        poll($0.baseAddress!.assumingMemoryBound(to: pollfd.self), 2, -1)
                    }
                    return count > 0 && entries.1.revents != 0
                }
                if stopping { return }
                idleSince = 0
            } else if request.waiting == .spin, stopped.load(ordering: .acquiring) {
                return
            }
            let count = try uffd.read(into: &batch)
            if count == 0 {
                guard request.waiting == .adaptive else { continue }
                let now = cbb_now()
                if idleSince == 0 { idleSince = now }
                polls = now - idleSince > request.spinLimit
                continue
            }
            polls = request.waiting == .poll
            idleSince = 0
            while let fault = batch.nextPageFault() {
                let page = fault.page(size: request.pageSize)
                guard request.range.contains(page.start) else {
                    // The bell of a handler that blocks in read.
                    _ = try uffd.zeropage(.page(holding: fault.address, size: .base))
                    return
                }
                try resolve(uffd, page, request)
            }
        }
    }

    @inline(__always)
    private static func resolve(
        _ uffd: borrowing UserfaultFD, _ page: AddressRange, _ request: HandlerRequest
    ) throws(UserfaultError) {
        let offset = page.start - request.range.start
        let target = AddressRange(
            start: page.start, count: min(request.window, request.range.count - Int(offset)))
        do throws(UserfaultError) {
            switch request.call {
            case .copy: try uffd.copy(from: request.source + offset, to: target)
            case .continue: try uffd.continue(target)
            case .zeropage: try uffd.zeropage(target)
            case .unprotect: try uffd.writeProtect(page, .unprotect)
            }
        } catch {
            guard error.errno == .fileExists || error.errno == .resourceTemporarilyUnavailable else { throw error }
            try uffd.wake(target)
        }
    }
}
