import Glibc
import UserfaultFD

/// Serves a number of faults, read a batch at a time, and does nothing else: `fault-loop COUNT [allocate]`.
///
/// With `allocate` every fault allocates, which proves that the counter counts.
@main
struct FaultLoop {
    static func main() throws(UserfaultError) {
        let faults = CommandLine.arguments.dropFirst().first.flatMap { Int($0) } ?? 1_000
        try serve(faults, allocating: CommandLine.arguments.contains("allocate"))
    }
}

/// What the toucher is told: whole pages, and how many touches.
struct Touches {
    var memory: AddressRange
    var count: Int
}

func serve(_ faults: Int, allocating: Bool) throws(UserfaultError) {
    let memory = try Mapping(anonymous: 256 * PageSize.base.bytes)
    let uffd = try UserfaultFD()
    try uffd.register(memory.range, modes: .missing)
    let contents = [UInt8](repeating: 7, count: PageSize.base.bytes)
    var batch = EventBatch()
    let toucher = startToucher(Touches(memory: memory.range, count: faults))
    var served = 0
    var kept: [UInt] = []
    while served < faults {
        guard try uffd.poll() else { continue }
        try uffd.read(into: &batch)
        while let fault = batch.nextPageFault() {
            try uffd.copy(contents.span.bytes, to: fault.page(size: .base))
            if allocating { kept = [fault.address] }
            served += 1
        }
    }
    pthread_join(toucher, nil)
    print("served \(served) faults, the last at \(kept.isEmpty ? "an address" : "0x\(String(kept[0], radix: 16))")")
}

func startToucher(_ touches: Touches) -> pthread_t {
    let argument = UnsafeMutablePointer<Touches>.allocate(capacity: 1)
    argument.initialize(to: touches)
    var thread = pthread_t()
    let answer = pthread_create(&thread, nil, { touch($0!.assumingMemoryBound(to: Touches.self)) }, argument)
    precondition(answer == 0, "no thread")
    return thread
}

/// Reads page after page, and drops them all when it has been through, so that every read faults.
func touch(_ touches: UnsafeMutablePointer<Touches>) -> UnsafeMutableRawPointer? {
    let memory = touches.pointee.memory
    var offset = 0
    for _ in 0..<touches.pointee.count {
        precondition(UnsafePointer<UInt8>(bitPattern: memory.start + UInt(offset))!.pointee == 7)
        offset += PageSize.base.bytes
        if offset == memory.count {
            offset = 0
            madvise(UnsafeMutableRawPointer(bitPattern: memory.start), memory.count, Int32(MADV_DONTNEED))
        }
    }
    return nil
}
