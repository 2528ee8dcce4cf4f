import CBenchBaseline
import UserfaultFD

/// `startup`: from nothing to the first fault resolved.
enum StartupScenarios {
    static var all: [Scenario] {
        [
            Scenario("startup", .start) { _ in
                let memory = try Memory(.anonymous, pages: 16)
                func once(_ body: () throws -> UInt64) throws -> Sample {
                    try memory.empty()
                    let time = try body()
                    guard time > 0 else { throw Mismeasured(description: "a call failed") }
                    return Sample(time, units: 1)
                }
                return [
                    Variant("c") { try once { cbb_startup(memory.base, memory.bytes, memory.pageSize) } },
                    Variant("swift", .time()) { try once { try swift(memory) } },
                ]
            }
        ]
    }

    /// The twin of `cbb_startup`.
    private static func swift(_ memory: Memory) throws -> UInt64 {
        let start = cbb_now()
        let uffd = try UserfaultFD()
        try uffd.register(memory.view.range, modes: .missing)
        var reader: UInt64 = 0
        guard cbb_reader_start(&reader, memory.base) == 0, try uffd.poll(timeout: .seconds(5)) else { return 0 }
        var batch = EventBatch(capacity: 1)
        try uffd.read(into: &batch)
        guard let fault = batch.nextPageFault() else { return 0 }
        try uffd.zeropage(fault.page(size: .base))
        cbb_reader_join(reader)
        let time = cbb_now() - start
        try uffd.close()
        return time
    }
}
