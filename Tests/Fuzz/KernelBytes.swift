import CUserfaultFD

@testable import UserfaultFD

/// Whatever bytes the kernel, /proc or a peer sends: an answer, and no trap.
///
/// Compiled with libFuzzer by Scripts/check/fuzz.sh, together with a copy of the library that is instrumented.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = UnsafeBufferPointer(start: start, count: count)
    decodeMessages(bytes)
    parseControl(bytes)
    if let status = UserfaultFD.Status(fdinfo: String(decoding: bytes, as: UTF8.self)) {
        _ = status.features.description
        _ = status.ioctls.impliedFeatures
    }
    return 0
}

private func decodeMessages(_ bytes: UnsafeBufferPointer<UInt8>) {
    var batch = EventBatch(capacity: 8)
    _ = batch.refill(inheriting: .init()) { messages in
        let room = UnsafeMutableRawBufferPointer(messages)
        let used = min(room.count, bytes.count)
        room.copyBytes(from: bytes.prefix(used))
        // A fork event owns the descriptor that it names: here it must not name one of the fuzzer's.
        for index in messages.indices where messages[index].event == 0x13 { messages[index].arg.fork.ufd |= 1 << 31 }
        return used
    }
    if let fault = batch.nextPageFault() { use(fault) }
    while let event = batch.next() {
        switch event {
        case .pagefault(let fault): use(fault)
        case .remove(let range): _ = range.description
        case .unmap(let range): _ = range.dropFirst(range.count / 2).description
        case .fork: fatalError("no descriptor, no fork")
        case .remap: break
        case .unknown(let event): _ = event.hashValue
        default: break
        }
    }
}

/// Control messages, which no length in them may lead out of their buffer.
private func parseControl(_ bytes: UnsafeBufferPointer<UInt8>) {
    // A copy of exactly this size, on the heap, whose end the sanitizer guards.
    let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 16)
    defer { copy.deallocate() }
    copy.copyBytes(from: bytes)
    var control = cuffd_control()
    cuffd_parse_control(copy.baseAddress, copy.count, &control)
    precondition((0...Int32(CUFFD_MAX_DESCRIPTORS)).contains(control.count))
}

private func use(_ fault: PageFault) {
    _ = fault.description
    for size in [PageSize.base, .twoMiB, .oneGiB] {
        precondition(fault.page(size: size).contains(fault.address) || fault.address == .max)
    }
}
