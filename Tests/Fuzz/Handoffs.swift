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
    switch input[0] % 7 {
    case 0: compare(bytes, size, { FirecrackerMessage(limits: limits) }) { try $0.consume($1) }
    case 1: compare(bytes, size, { HandoffMessage(limits: limits) }) { try $0.consume($1) }
    case 2: compareRequests(bytes, size, .snapshot)
    case 3: compareRequests(bytes, size, .faults)
    case 4: readLayout(bytes)
    case 5: readRecord(bytes)
    default: _ = try? HandoffReply.read(bytes)
    }
    return 0
}

/// A record that is read is written again as it was.
private func readRecord(_ bytes: [UInt8]) {
    for bytes in [bytes, Array("UFFDKEPT".utf8) + bytes] {
        guard let record = try? KeptRecord(bytes: bytes) else { continue }
        precondition(record.bytes == bytes, "a record is written in another way")
    }
}

private let machineLimits = CloudHypervisorLimits(configBytes: 300, stateBytes: 500, slots: 8)

/// Reads requests in one piece and in many: the same ones, up to the same refusal.
private func compareRequests(_ bytes: [UInt8], _ size: Int, _ role: CloudHypervisorRequests.Role) {
    func read(_ size: Int) -> (found: [CloudHypervisorRequests.Request], error: HandoffError?) {
        var requests = CloudHypervisorRequests(role, limits: machineLimits)
        var found: [CloudHypervisorRequests.Request] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            requests.append(rest.prefix(size))
            rest = rest.dropFirst(size)
            do throws(HandoffError) {
                while let request = try requests.next() { found.append(request) }
            } catch {
                return (found, error)
            }
        }
        return (found, nil)
    }
    precondition(read(bytes.count) == read(size), "other requests in pieces of \(size) bytes")
}

private func readLayout(_ bytes: [UInt8]) {
    let text = Array(#"{"memory_manager_data":{"guest_ram_mappings":[{"slot":0,"gpa":"#.utf8)
    for config in [bytes, text + bytes] {
        guard let layout = try? CloudHypervisorLayout(config: config, limits: machineLimits) else { continue }
        precondition((1...8).contains(layout.slots.count))
        for slot in layout.slots {
            precondition(slot.byteCount > 0 && slot.fileEnd > slot.fileOffset)
            precondition(slot.contains(slot.address, slot.byteCount))
            precondition(!slot.contains(slot.address, slot.byteCount + 1))
        }
    }
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
