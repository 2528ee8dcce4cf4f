import Foundation
import UserfaultFD

/// Resolves a fault by moving a page that is ready, without copying it.
func moveAPage() throws -> UInt8 {
    let size = PageSize.base.bytes
    let memory = try Mapping(anonymous: size)
    let userfaultfd = try UserfaultFD()
    try userfaultfd.register(memory.range, modes: .missing)

    // The page to give away: memory of its own, in which nothing else lives, and which no child of a fork shares.
    var ready = try Mapping(anonymous: size)
    try ready.advise(.dontFork)
    ready.withMutableBytes { $0.storeBytes(of: 7 as UInt8, as: UInt8.self) }

    let address = memory.range.start
    let done = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
        print("the thread read", UnsafePointer<UInt8>(bitPattern: address)!.pointee)
        done.signal()
    }
    var batch = EventBatch()
    guard try userfaultfd.poll(timeout: .seconds(10)) else { return 0 }
    try userfaultfd.read(into: &batch)
    while let fault = batch.nextPageFault() {
        try fill(fault.page(size: .base), from: ready.range.start, of: userfaultfd)
    }
    // The memory is unmapped at its last use.
    done.wait()
    return memory.withBytes { $0.unsafeLoad(as: UInt8.self) }
}

func fill(_ page: AddressRange, from source: UInt, of userfaultfd: borrowing UserfaultFD) throws(UserfaultError) {
    do throws(UserfaultError) {
        try unsafe userfaultfd.move(from: source, to: page)
    } catch {
        switch error.reason {
        case .noSourcePage: try userfaultfd.zeropage(page)  // The source was never written: it reads as zeros.
        case .busy: try userfaultfd.copy(from: source, to: page)  // Shared or pinned: copied, not moved.
        default: throw error
        }
    }
}

if KernelSupport.probe().has(.feature(.move)) {
    print("the page that was moved holds", try moveAPage())
} else {
    print("skipped: UFFDIO_MOVE needs Linux 6.8")
}
