package import UserfaultFD

extension UserfaultFD {
    /// Reads one message, which must come.
    package func expectMessage(
        _ what: @autoclosure () -> String = "a message", file: String = #fileID, line: Int = #line
    ) throws -> Event {
        var batch = EventBatch(capacity: 1)
        try Waiting.until("\(what()) comes", file: file, line: line) {
            try poll(timeout: .milliseconds(100)) && read(into: &batch) == 1
        }
        return batch.next()!
    }

    /// Reads one page fault, which must come, about this page.
    ///
    /// - Parameters:
    ///   - flags: What the kernel must say of the access.
    ///   - thread: The thread that it must name; 0 without `THREAD_ID`.
    @discardableResult
    package func expectFault(
        at address: UInt, _ flags: PageFault.Flags, thread: Int32 = 0, file: String = #fileID, line: Int = #line
    ) throws -> PageFault {
        guard case .pagefault(let fault) = try expectMessage("a page fault", file: file, line: line) else {
            throw CaseFailure(expected: "a page fault", seen: "another event", file: file, line: line)
        }
        try expectEqual(
            fault.address, address, "address of the fault (page \(fault))", file: file, line: line)
        try expectEqual(fault.flags, flags, "flags of the fault", file: file, line: line)
        try expectEqual(fault.threadID, UInt32(thread), "thread of the fault", file: file, line: line)
        return fault
    }

    /// Fails if there is a message to read.
    package func expectNoMessage(
        _ why: @autoclosure () -> String = "nothing to report", file: String = #fileID, line: Int = #line
    ) throws {
        var batch = EventBatch(capacity: 1)
        let count = try read(into: &batch)
        try expect(
            count == 0, "no message: \(why())", seen: describe(batch.next()), file: file, line: line)
    }

    /// Waits until so many threads wait for this descriptor, read or unread, and are asleep.
    package func waitBlocked(_ count: Int, file: String = #fileID, line: Int = #line) throws {
        try Waiting.until("\(count) threads wait for the userfaultfd", file: file, line: line) {
            try status().total == count
        }
    }

    /// Fails unless exactly so many threads wait for this descriptor.
    package func expectWaiters(
        pending: Int? = nil, total: Int, _ why: @autoclosure () -> String = "", file: String = #fileID,
        line: Int = #line
    ) throws {
        let status = try status()
        try expectEqual(status.total, total, "total in fdinfo \(why())", file: file, line: line)
        if let pending {
            try expectEqual(status.pending, pending, "pending in fdinfo \(why())", file: file, line: line)
        }
    }

    private func describe(_ event: consuming Event?) -> String {
        guard let event else { return "no event" }
        switch event {
        case .pagefault(let fault): return "\(fault)"
        case .fork: return "a fork event"
        case .remap(let from, let to, let count): return "a remap event \(from) to \(to), \(count) bytes"
        case .remove(let range): return "a remove event \(range)"
        case .unmap(let range): return "an unmap event \(range)"
        case .unknown(let number): return "an unknown event \(number)"
        }
    }
}

extension UserfaultFD {
    /// Fills pages with a copy of prepared memory.
    @discardableResult
    package func copy(
        from source: borrowing Mapping, to destination: AddressRange, options: CopyOptions = []
    ) throws(UserfaultError) -> Int {
        try copy(from: source.range.start, to: destination, options: options)
    }
}
