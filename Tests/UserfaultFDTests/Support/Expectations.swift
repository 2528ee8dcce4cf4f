import SystemPackage
import Testing

@testable import UserfaultFD

/// Expects a call to fail in exactly this way.
func expectFailure<Value: ~Copyable>(
    _ operation: UserfaultError.Operation, _ errno: Errno, _ reason: UserfaultError.Reason, bytes: Int = 0,
    sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws(UserfaultError) -> Value
) {
    do throws(UserfaultError) {
        _ = try body()
        Issue.record("\(operation) did not fail", sourceLocation: sourceLocation)
    } catch {
        #expect(error.operation == operation, sourceLocation: sourceLocation)
        #expect(error.errno == errno, sourceLocation: sourceLocation)
        #expect(error.reason == reason, sourceLocation: sourceLocation)
        #expect(error.bytesCompleted == bytes, sourceLocation: sourceLocation)
    }
}

extension UserfaultFD {
    /// Waits for the next event, or 10 seconds; the batch must be empty.
    func nextEvent(_ batch: inout EventBatch) throws -> Event? {
        guard try poll(timeout: .seconds(10)) else { return nil }
        try read(into: &batch)
        return batch.next()
    }

    /// Waits for the next event, which must be a page fault.
    func nextFault(sourceLocation: SourceLocation = #_sourceLocation) throws -> PageFault {
        var batch = EventBatch(capacity: 1)
        switch try nextEvent(&batch) {
        case .pagefault(let fault): return fault
        default:
            Issue.record("no page fault came", sourceLocation: sourceLocation)
            throw UserfaultError(.read, errno: .noData)
        }
    }
}

/// A userfaultfd that came over a socket, with its payload.
struct Arrived: ~Copyable {
    let payload: [UInt8]
    let userfaultFD: UserfaultFD

    init(over socket: FileDescriptor, features: UserfaultFD.Features? = nil) throws(UserfaultError) {
        var message = try DescriptorPassing.receive(from: socket)
        userfaultFD = try message.descriptors.takeUserfaultFD(features: features)
        payload = message.payload
    }

    consuming func take() -> UserfaultFD { userfaultFD }
}

/// A scan, whose failure is only what the kernel answered.
func scanResult(
    _ scan: borrowing PagemapScan, _ range: AddressRange, _ query: PagemapScan.Query
) throws(UserfaultError) -> PagemapScan.Result {
    do throws(PagemapScan.Failure) {
        return try scan.scan(range, for: query)
    } catch {
        throw error.error
    }
}
