import CBenchBaseline
import CUserfaultFD
import UserfaultFD

/// `startup`: from nothing to the first fault resolved.
enum StartupScenarios {
    static var all: [Scenario] {
        [
            Scenario("startup", .start) { settings in
                let memory = try Memory(.anonymous, pages: 16)
                let times = settings.count(200, quick: 50)
                func repeated(_ body: () throws -> UInt64) throws -> Sample {
                    var total: UInt64 = 0
                    for _ in 0..<times {
                        try memory.empty()
                        let time = try body()
                        guard time > 0 else { throw Unavailable(reason: "a call failed") }
                        total += time
                    }
                    return Sample(nanoseconds: Double(total) / Double(times))
                }
                return [
                    Variant("c") { try repeated { cbb_startup(memory.base, memory.bytes, memory.pageSize) } },
                    Variant("swift") { try repeated { try swift(memory) } },
                ]
            }
        ]
    }

    private static func swift(_ memory: Memory) throws -> UInt64 {
        let start = cbb_now()
        let uffd = try UserfaultFD()
        try uffd.register(memory.view.range, modes: .missing)
        var thread: cuffd_thread_t = 0
        let answer = cuffd_thread_create(
            &thread, "toucher", 0, { cbb_touch(UInt64(UInt(bitPattern: $0)), 1, 4096, nil, 0, nil) },
            UnsafeMutableRawPointer(bitPattern: memory.view.range.start))
        guard answer == 0, try uffd.poll(timeout: .seconds(5)) else { return 0 }
        var batch = EventBatch(capacity: 1)
        try uffd.read(into: &batch)
        guard let fault = batch.nextPageFault() else { return 0 }
        try uffd.zeropage(fault.page(size: .base))
        _ = cuffd_thread_join(thread, -1)
        return cbb_now() - start
    }
}
