@testable import UserfaultFD
@testable import UserfaultHandoff

/// Whatever bytes are in CRIU's images, on its socket, or come from its page server: an answer, and no trap.
///
/// Compiled with libFuzzer by Scripts/check/fuzz.sh, together with a copy of the library that is instrumented.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: start, count: count))
    guard let choice = bytes.first else { return 0 }
    let content = bytes[1...]
    // Most inputs would fail for their magic number alone.
    switch choice % 6 {
    case 0: readPagemap([0x19, 0x43, 0x56, 0x54, 0x25, 0x40, 0x08, 0x56] + content)
    case 1: readPagemap(Array(content))
    case 2: readMappings([0x19, 0x43, 0x56, 0x54, 0x20, 0x28, 0x49, 0x57] + content)
    case 3:
        if let tasks = try? CRIUProcessTree.tasks(([0x19, 0x43, 0x56, 0x54, 0x30, 0x30, 0x27, 0x50] + content)[...]) {
            precondition(!tasks.isEmpty && tasks.allSatisfy { $0 > 0 })
        }
        try? CRIUProcessTree.check(inventory: ([0x16, 0x31, 0x31, 0x58] + content)[...])
    case 4: converse(content)
    default: readMessages(content)
    }
    return 0
}

private func readPagemap(_ bytes: [UInt8]) {
    // A pagemap that is its own parent, whose runs must end somewhere all the same.
    guard let pagemap = try? CRIUPagemap(bytes[...]) else { return }
    let index = CRIUPageIndex([pagemap, pagemap])
    let size = UInt64(PageSize.base.bytes)
    var last: UInt64 = 0
    for run in pagemap.runs {
        precondition(run.start >= last && run.count > 0 && run.count % size == 0 && run.start % size == 0)
        last = run.end
        for address in [run.start, run.end - size, run.end] {
            guard let found = try? index.find(address, limit: 64 * Int(size)) else { continue }
            precondition(found.count > 0 && found.count % Int(size) == 0 && found.count <= 64 * Int(size))
            if case .file(let level, let offset) = found.place {
                precondition(UInt64(offset + found.count) <= index.levels[level].bytesInFile)
            }
        }
    }
    let ranges = index.lazyRanges(in: AddressRange(start: 0, count: Int.max))
    precondition(ranges.reduce(0) { $0 + $1.count } == index.lazyPages * Int(size))
}

private func readMappings(_ bytes: [UInt8]) {
    guard let mappings = try? CRIUMemoryMap.mappings(bytes[...]) else { return }
    for (first, second) in zip(mappings, mappings.dropFirst()) { precondition(first.end <= second.start) }
    precondition(mappings.allSatisfy { !$0.isEmpty && $0.isAligned(to: .base) })
}

private func converse(_ bytes: ArraySlice<UInt8>) {
    var conversation = CRIUConversation(limit: 8)
    var tasks = 0
    for byte in bytes {
        guard let event = try? conversation.take(byte, descriptors: Int(byte & 1)) else {
            continue
        }
        if case .restored = event { continue }
        tasks += 1
        precondition(tasks <= 8 || conversation.isRestored)
    }
}

private func readMessages(_ bytes: ArraySlice<UInt8>) {
    for layout in [CRIUPageServerMessage.Layout.narrow, .wide] where bytes.count >= layout.byteCount {
        let message = CRIUPageServerMessage(bytes.prefix(layout.byteCount), layout)
        let again = CRIUPageServerMessage(message.bytes(layout)[...], layout)
        precondition(again == message)
    }
}
