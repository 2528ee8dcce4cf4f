// Compiled, never run: what a program sees that imports the library and nothing else. Whatever stands here must go on
// to compile, with every upcoming feature of the language on.
import UserfaultFD

/// Every kind of public name once.
func canary() throws(UserfaultError) {
    let memory = try UserfaultFD::Mapping(anonymous: 2 * PageSize.base.bytes)
    let memfd = try Memfd(count: PageSize.base.bytes)
    let uffd = try UserfaultFD(features: [.threadID], options: .init(faults: .userMode, way: .either))
    let ioctls: UserfaultFD.Ioctls = try uffd.register(memory.range, modes: [.missing, .writeProtect])
    var batch = EventBatch(capacity: 8)
    try uffd.read(into: &batch)
    while let event = batch.next() {
        switch consume event {
        case .pagefault(let fault):
            try uffd.zeropage(fault.page(size: .base), options: .doNotWake)
            try uffd.wake(fault.page(size: memory.pageSize))
        case .fork(let child): try child.close()
        case .remap(let from, let to, let count): _ = (from, to, count)
        case .remove(let range): _ = range.count
        case .unmap(let range): _ = range.end
        case .unknown(let event): _ = event.number
        @unknown default: break
        }
    }
    try uffd.writeProtect(memory.range, .protect)
    if ioctls.contains(.continue) { try uffd.continue(memory.page(0), options: [.writeProtect]) }
    if uffd.supportedFeatures.contains(.move) { unsafe try uffd.move(from: 0, to: memory.page(1)) }
    if uffd.supportedFeatures.contains(.poison) { try uffd.poison(memory.page(1)) }
    let pagemap = try PagemapScan()
    do throws(PagemapScan.Failure) {
        let scan = try pagemap.scan(memory.range, for: .takeWritten)
        for region in scan.regions where region.categories.contains(.written) { _ = region.range.start }
    } catch {
        _ = error.regions
        throw error.error
    }
    try memfd.punchHole(at: 0, count: memfd.pageSize.bytes)
    try memory.advise(.dontNeed)
    let support = KernelSupport.probe()
    for check in support.checks where !check.isAvailable { _ = check.remedy }
}

/// A type of the program's own with a name of the library's: the module's name selects the other.
struct Mapping {}

func qualified(_ own: Mapping, _ range: AddressRange) -> UserfaultFD::Mapping {
    unsafe UserfaultFD::Mapping(adopting: range)
}

/// The reasons that a handler tells apart.
func isTransient(_ error: UserfaultError) -> Bool {
    switch error.reason {
    case .mappingIsChanging, .partial, .interrupted, .wouldBlock: true
    case .alreadyMapped, .noSuchRange, .processGone, .noMemory: false
    default: false
    }
}
