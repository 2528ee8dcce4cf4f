/// A program, a kernel and a pager, whose steps the bytes choose: every page read is right, and nobody waits for ever.
///
/// Compiled with libFuzzer by Scripts/check/fuzz.sh, together with the models of the pager's tests.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let run = RandomRun(Bytes(left: UnsafeBufferPointer(start: start, count: count)[...]))
    do {
        if let violation = try run.violation(after: 8 * count) { fatalError("\(violation)") }
    } catch {
        fatalError("no memory for a model: \(error)")
    }
    return 0
}

private struct Bytes: Chooser {
    var left: Slice<UnsafeBufferPointer<UInt8>>
    var isAtItsEnd: Bool { left.isEmpty }

    mutating func below(_ limit: Int) -> Int { Int(left.popFirst() ?? 0) % limit }
}
