import Foundation
import UserfaultFD

/// Serves a page when it is first touched.
func example() throws -> UInt8 {
    let page = PageSize.base.bytes
    let memory = try Mapping(anonymous: 16 * page)
    let userfaultfd = try UserfaultFD()
    try userfaultfd.register(memory.range, modes: .missing)

    // A thread of its own touches the memory; never a Task, whose pool a page fault would block.
    let address = memory.page(3).start
    Thread.detachNewThread {
        print("the thread read", UnsafePointer<UInt8>(bitPattern: address)!.pointee)
    }

    let contents = [UInt8](repeating: 42, count: page)
    var batch = EventBatch()
    guard try userfaultfd.poll(timeout: .seconds(10)) else { return 0 }
    try userfaultfd.read(into: &batch)
    while let fault = batch.nextPageFault() {
        print("a \(fault.kind) fault on page \((fault.address - memory.range.start) / UInt(page))")
        try userfaultfd.copy(contents.span.bytes, to: fault.page(size: .base))
    }
    return memory.withBytes { $0.unsafeLoad(fromByteOffset: 3 * page, as: UInt8.self) }
}

print("the page holds", try example())
