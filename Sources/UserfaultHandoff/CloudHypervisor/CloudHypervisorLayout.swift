internal import UserfaultFD

/// Where a machine's memory is: what is taken from the configuration that Cloud Hypervisor sends.
///
/// The rest of the configuration stays as it is.
struct CloudHypervisorLayout: Hashable {
    /// A part of the guest's physical memory.
    struct Slot: Hashable {
        var number: UInt32
        /// The guest's physical address.
        var address: UInt64
        var byteCount: Int
        /// Where the part begins in the file that is shared with Cloud Hypervisor.
        var fileOffset: Int

        /// Where the part ends in that file.
        var fileEnd: Int { fileOffset + byteCount }

        func contains(_ first: UInt64, _ count: Int) -> Bool {
            first >= address && first - address <= UInt64(byteCount) && count <= byteCount - Int(first - address)
        }
    }

    /// In the order of their addresses.
    let slots: [Slot]

    /// - Throws: ``HandoffError/malformed(_:)``, ``HandoffError/tooManyRegions(limit:)``.
    init(config bytes: [UInt8], limits: CloudHypervisorLimits) throws(HandoffError) {
        var reader = JSONReader(bytes)
        var found: [Slot]?
        try reader.object { (reader, name) throws(HandoffError) in
            guard name == "memory_manager_data" else { return try reader.skipValue() }
            try reader.object { (reader, name) throws(HandoffError) in
                guard name == "guest_ram_mappings" else { return try reader.skipValue() }
                guard found == nil else { throw .malformed("the memory's layout comes twice") }
                found = try Self.slots(&reader, limits)
            }
        }
        try reader.end()
        guard let found, !found.isEmpty else { throw .malformed("the configuration has no guest_ram_mappings") }
        slots = found.sorted { $0.address < $1.address }
        guard Set(slots.map(\.number)).count == slots.count else { throw .malformed("two slots have the same number") }
        for (former, latter) in zip(slots, slots.dropFirst())
        where latter.address - former.address < UInt64(former.byteCount) {
            throw .malformed("slots \(former.number) and \(latter.number) overlap")
        }
    }

    private static func slots(
        _ reader: inout JSONReader, _ limits: CloudHypervisorLimits
    ) throws(HandoffError) -> [Slot] {
        var slots: [Slot] = []
        try reader.array { (reader) throws(HandoffError) in
            guard slots.count < limits.slots else { throw .tooManyRegions(limit: limits.slots) }
            slots.append(try slot(&reader))
        }
        return slots
    }

    private static func slot(_ reader: inout JSONReader) throws(HandoffError) -> Slot {
        var values: [String: UInt64] = [:]
        try reader.object { (reader, name) throws(HandoffError) in
            guard ["slot", "gpa", "size", "file_offset"].contains(name) else { return try reader.skipValue() }
            guard values.updateValue(try reader.unsigned(), forKey: name) == nil else {
                throw .malformed("a slot has \(name) twice")
            }
        }
        func required(_ name: String) throws(HandoffError) -> UInt64 {
            guard let value = values[name] else { throw .malformed("a slot has no \(name)") }
            return value
        }
        guard let number = UInt32(exactly: try required("slot")) else {
            throw .malformed("a slot's number is too large")
        }
        let address = try required("gpa")
        let page = UInt64(PageSize.base.bytes)
        guard let count = Int(exactly: try required("size")), let offset = Int(exactly: try required("file_offset")),
            count > 0, !offset.addingReportingOverflow(count).overflow,
            !address.addingReportingOverflow(UInt64(count)).overflow,
            UInt64(count) % page == 0, UInt64(offset) % page == 0, address % page == 0
        else { throw .malformed("slot \(number) is empty, too large, or not made of whole pages") }
        return Slot(number: number, address: address, byteCount: count, fileOffset: offset)
    }
}
