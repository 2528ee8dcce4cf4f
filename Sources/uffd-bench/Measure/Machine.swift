import CBenchBaseline
import CUserfaultFD
import Foundation
import UserfaultFD
import UserfaultPager

/// Where the numbers were measured.
struct Machine: Codable {
    let kernel: String
    let architecture: String
    let processors: Int
    let processorName: String
    /// The load average of the last minute, before the run.
    let load: Double
    /// How much slower than the fastest the slower half of equal pieces of work was, in percent.
    let noise: Double

    init() {
        let support = KernelSupport.probe()
        kernel = support.kernelRelease
        architecture = support.machine
        processors = ProcessInfo.processInfo.activeProcessorCount
        let information = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        processorName =
            information.split(separator: "\n").first { $0.hasPrefix("model name") }?
            .split(separator: ":").last.map { $0.trimmingCharacters(in: .whitespaces) } ?? "unknown"
        load =
            (try? String(contentsOfFile: "/proc/loadavg", encoding: .utf8))?
            .split(separator: " ").first.flatMap { Double($0) } ?? .nan
        noise = Self.measureNoise()
    }

    /// Runs the same short piece of work many times.
    ///
    /// On an idle machine all take the same time.
    private static func measureNoise() -> Double {
        let size = 1 << 20
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
        defer { memory.deallocate() }
        memset(memory, 1, size)
        let address = UInt64(UInt(bitPattern: memory))
        let times = (0..<200).map { _ -> UInt64 in
            let start = cbb_now()
            _ = cbb_scan(address, size)
            return cbb_now() - start
        }.sorted()
        return (Double(times[150]) / Double(max(1, times[0])) - 1) * 100
    }

    /// What makes the numbers doubtful.
    var warnings: [String] {
        var warnings: [String] = []
        if processors < 2 { warnings.append("one processor: nothing across processors can be measured") }
        if load > Double(processors) / 2 {
            warnings.append("the load was \(load) before the run: other programs take part of the time")
        }
        if noise > 25 {
            warnings.append("equal work varied by \(Int(noise)) %: the machine was too noisy to tell small differences")
        }
        return warnings
    }
}

/// Keeping threads on processors.
enum Processor {
    private static let allowed = ProcessorSet()

    /// The processors that this process may run on.
    static let all = allowed.processors

    /// Keeps the calling thread on one processor, or lets it go anywhere.
    static func pin(_ processor: Int?) {
        (processor.map { ProcessorSet($0) } ?? allowed).keepCallingThread()
    }
}
