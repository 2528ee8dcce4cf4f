internal import UserfaultFD

// What is taken from the small image files: `inventory.img`, `pstree.img` and `mm-PID.img`.

/// The tasks of a dump.
enum CRIUProcessTree {
    /// - Returns: The tasks' process ids, as they were in the dump's namespace.
    static func tasks(_ bytes: ArraySlice<UInt8>) throws(CRIUImageError.Reason) -> [Int32] {
        var file = try CRIUImageFile(bytes, .processTree)
        var tasks: [Int32] = []
        while var entry = try file.next() {
            var identifier: UInt64?
            while let field = try entry.next() {
                if case .number(1, let value) = field { identifier = value }
            }
            guard let identifier, let task = Int32(exactly: identifier), task > 0 else { throw .missingField("pid") }
            tasks.append(task)
        }
        guard !tasks.isEmpty else { throw .badMessage }
        return tasks
    }

    /// Whether the images are of a version that this library knows.
    ///
    /// - Throws: ``CRIUImageError/Reason/version(_:)``.
    static func check(inventory bytes: ArraySlice<UInt8>) throws(CRIUImageError.Reason) {
        var file = try CRIUImageFile(bytes, .inventory)
        guard var entry = try file.next() else { throw .badMessage }
        var version: UInt64?
        while let field = try entry.next() {
            if case .number(1, let value) = field { version = value }
        }
        guard let version else { throw .missingField("img_version") }
        guard (1...2).contains(version) else { throw .version(version) }
    }
}

/// The mappings of a task.
enum CRIUMemoryMap {
    /// - Returns: In the order of their addresses, those of the kernel's half left out; those that touch each other stay
    ///   apart.
    static func mappings(_ bytes: ArraySlice<UInt8>) throws(CRIUImageError.Reason) -> [AddressRange] {
        var file = try CRIUImageFile(bytes, .memoryMap)
        guard var entry = try file.next() else { throw .badMessage }
        var mappings: [AddressRange] = []
        while let field = try entry.next() {
            guard case .bytes(14, let bytes) = field, let mapping = try mapping(bytes) else { continue }
            if let last = mappings.last, last.end > mapping.start { throw .badRange }
            mappings.append(mapping)
        }
        return mappings
    }

    private static func mapping(_ bytes: ArraySlice<UInt8>) throws(CRIUImageError.Reason) -> AddressRange? {
        var reader = ProtobufReader(bytes)
        var start: UInt64?
        var end: UInt64?
        while let field = try reader.next() {
            switch field {
            case .number(1, let value): start = value
            case .number(2, let value): end = value
            default: break
            }
        }
        guard let start, let end else { throw .missingField("start or end") }
        let size = UInt64(PageSize.base.bytes)
        guard end > start, start % size == 0, end % size == 0 else { throw .badRange }
        guard end <= UInt64(Int.max) else { return nil }
        return AddressRange(start: UInt(start), end: UInt(end))
    }
}
