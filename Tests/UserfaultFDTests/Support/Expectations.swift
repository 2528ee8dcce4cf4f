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
