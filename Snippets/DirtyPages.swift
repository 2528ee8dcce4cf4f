// snippet.probe
import Glibc
import UserfaultFD

guard KernelSupport.probe().has(.feature(.writeProtectAsync)) else {
    print("skipped: asynchronous write protection needs Linux 6.7")
    exit(0)
}
// snippet.protect

let size = PageSize.base.bytes
var memory = try Mapping(anonymous: 16 * size)
let userfaultfd = try UserfaultFD(features: .writeProtectAsync)
try userfaultfd.register(memory.range, modes: .writeProtect)
let pagemap = try PagemapScan()
try pagemap.writeProtect(memory.range)
// snippet.write

// The program writes. No fault is reported, and nobody waits.
for page in [3, 4, 11] {
    memory.withMutableBytes { $0.storeBytes(of: 1, toByteOffset: page * size, as: UInt8.self) }
}
// snippet.take

/// Finds the pages that were written, and protects them again, in one step.
func takeDirtyPages(of memory: AddressRange) -> [Int] {
    var dirty: [AddressRange] = []
    do throws(PagemapScan.Failure) {
        dirty = try pagemap.scan(memory, for: .takeWritten, regionLimit: nil).regions.map(\.range)
    } catch {
        // What was found before a failure is protected again, and would not be found a second time.
        dirty = error.regions.map(\.range)
        print("the scan ended early: \(error)")
    }
    return dirty.flatMap { range in
        (0..<range.count / size).map { memory.offset(of: range.start) / size + $0 }
    }
}
print("dirty pages:", takeDirtyPages(of: memory.range))
// snippet.again

memory.withMutableBytes { $0.storeBytes(of: 2, toByteOffset: 7 * size, as: UInt8.self) }
print("dirty pages since then:", takeDirtyPages(of: memory.range))
