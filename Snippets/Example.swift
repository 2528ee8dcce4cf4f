// snippet.memory
import Foundation
import UserfaultFD

// Sixteen pages of addresses. No page has memory yet.
let page = PageSize.base.bytes
let memory = try Mapping(anonymous: 16 * page)
// snippet.register

// From now on, a thread that touches one of these pages waits.
let userfaultfd = try UserfaultFD()
try userfaultfd.register(memory.range, modes: .missing)
// snippet.touch

// A thread of its own touches the memory; a Task must not.
let address = memory.page(3).start
let done = DispatchSemaphore(value: 0)
Thread.detachNewThread {
    print("the thread read", UnsafePointer<UInt8>(bitPattern: address)!.pointee)
    done.signal()
}
// snippet.read

var batch = EventBatch()
guard try userfaultfd.poll(timeout: .seconds(10)) else { fatalError("no thread touched the memory") }
try userfaultfd.read(into: &batch)
// snippet.fill

let contents = [UInt8](repeating: 42, count: page)
while let fault = batch.nextPageFault() {
    print("a \(fault.kind) fault on page \((fault.address - memory.range.start) / UInt(page))")
    try userfaultfd.copy(contents.span.bytes, to: fault.page(size: .base))
}
// snippet.end

done.wait()
print("the page holds", memory.withBytes { $0.unsafeLoad(fromByteOffset: 3 * page, as: UInt8.self) })
