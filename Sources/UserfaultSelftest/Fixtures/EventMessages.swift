package import UserfaultFD

extension UserfaultFD {
    /// Reads one message, which must be a REMOVE of this range.
    package func expectRemove(_ range: AddressRange, file: String = #fileID, line: Int = #line) throws {
        guard case .remove(let seen) = try expectMessage("a remove event", file: file, line: line) else {
            throw CaseFailure(expected: "a remove event", seen: "another event", file: file, line: line)
        }
        try expectEqual(seen, range, "range of the remove event", file: file, line: line)
    }

    /// Reads one message, which must be an UNMAP of this range.
    package func expectUnmap(_ range: AddressRange, file: String = #fileID, line: Int = #line) throws {
        guard case .unmap(let seen) = try expectMessage("an unmap event", file: file, line: line) else {
            throw CaseFailure(expected: "an unmap event", seen: "another event", file: file, line: line)
        }
        try expectEqual(seen, range, "range of the unmap event", file: file, line: line)
    }

    /// Reads one message, which must be a REMAP of this range to this address.
    package func expectRemap(
        _ old: AddressRange, to new: UInt, file: String = #fileID, line: Int = #line
    ) throws {
        guard case .remap(let from, let to, let count) = try expectMessage("a remap event", file: file, line: line)
        else {
            throw CaseFailure(expected: "a remap event", seen: "another event", file: file, line: line)
        }
        try expectEqual(from, old.start, "old address of the remap event", file: file, line: line)
        try expectEqual(to, new, "new address of the remap event", file: file, line: line)
        try expectEqual(count, old.count, "length of the remap event, which is the old one", file: file, line: line)
    }

    /// Reads one message, which must be a FORK; answers the child's descriptor.
    package func expectFork(file: String = #fileID, line: Int = #line) throws -> UserfaultFD {
        let event = try expectMessage("a fork event", file: file, line: line)
        switch consume event {
        case .fork(let child): return child
        default: throw CaseFailure(expected: "a fork event", seen: "another event", file: file, line: line)
        }
    }
}

/// Address space with nothing in it, to move a mapping to: the mapping replaces it.
package func reserve(_ count: Int, alignment: Int = PageSize.base.bytes) throws -> AddressRange {
    let slack = alignment - PageSize.base.bytes
    let reservation = try Mapping(anonymous: count + slack, protection: .none, options: .noReserve)
    let range = reservation.release()
    let start = (range.start + UInt(alignment) - 1) & ~UInt(alignment - 1)
    return AddressRange(start: start, count: count)
}
