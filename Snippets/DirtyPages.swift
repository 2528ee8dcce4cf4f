import UserfaultFD

/// Finds the pages that were written, and protects them again, in one step.
func takeDirtyPages() throws -> [Int] {
    let size = PageSize.base.bytes
    var memory = try Mapping(anonymous: 16 * size)
    let userfaultfd = try UserfaultFD(features: .writeProtectAsync)
    try userfaultfd.register(memory.range, modes: .writeProtect)
    let pagemap = try PagemapScan()
    try pagemap.writeProtect(memory.range)

    // The program writes. No fault is reported, and nobody waits.
    for page in [3, 4, 11] {
        memory.withMutableBytes { $0.storeBytes(of: 1 as UInt8, toByteOffset: page * size, as: UInt8.self) }
    }

    var dirty: [AddressRange] = []
    do throws(PagemapScan.Failure) {
        dirty = try pagemap.scan(memory.range, for: .takeWritten, regionLimit: nil).regions.map(\.range)
    } catch {
        // What was found before a failure is protected again, and would not be found a second time.
        dirty = error.regions.map(\.range)
        print("the scan ended early: \(error)")
    }
    return dirty.flatMap { range in
        (0..<range.count / size).map { memory.range.offset(of: range.start) / size + $0 }
    }
}

if KernelSupport.probe().has(.feature(.writeProtectAsync)) {
    print("dirty pages:", try takeDirtyPages())
} else {
    print("skipped: asynchronous write protection needs Linux 6.7")
}
