@testable import UserfaultHandoff

/// Whatever bytes a peer sends, in whatever pieces: an answer, and no trap, and the same answer for every division.
///
/// Compiled with libFuzzer by Scripts/check/fuzz.sh, together with a copy of the library that is instrumented.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = UnsafeBufferPointer(start: start, count: count)
    guard count >= 2 else { return 0 }
    let size = Int(input[1]) + 1
    let bytes = Array(input.dropFirst(2))
    switch input[0] % 3 {
    case 0: compare(bytes, size, { FirecrackerMessage(limits: limits) }) { try $0.consume($1) }
    case 1: compare(bytes, size, { HandoffMessage(limits: limits) }) { try $0.consume($1) }
    default: _ = try? HandoffReply.read(bytes)
    }
    return 0
}

private let limits = HandoffLimits(messageBytes: 4096, regions: 16)

/// Reads the bytes in one piece and in many.
private func compare<Message, Result: Equatable>(
    _ bytes: [UInt8], _ size: Int, _ message: () -> Message,
    _ consume: (inout Message, ArraySlice<UInt8>) throws -> Result?
) {
    var whole = message()
    let expected = try? consume(&whole, bytes[...])
    var parts = message()
    var found: Result?
    var rest = bytes[...]
    while !rest.isEmpty, found == nil {
        guard let answer = try? consume(&parts, rest.prefix(size)) else {
            // Refused, or not complete.
            found = nil
            rest = rest.dropFirst(size)
            continue
        }
        found = answer
        rest = rest.dropFirst(size)
    }
    // What follows a complete message is refused, but only if it is read along with it.
    if rest.isEmpty, let expected { precondition(found == expected, "another answer in pieces of \(size) bytes") }
}
