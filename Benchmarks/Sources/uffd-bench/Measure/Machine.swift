import Foundation
import UserfaultFD
import UserfaultPager

/// Where the numbers were measured.
struct Machine: Codable {
    let kernel: String
    let architecture: String
    let processors: Int
    let processorName: String
    /// Whether a hypervisor runs it.
    let isVirtual: Bool
    let clockSource: String
    /// The setting of transparent huge pages; the memory that is measured has them switched off.
    let transparentHugePages: String
    /// The order from which on free memory is reported to the host, which takes its backing away; none for never.
    let pageReportingOrder: Int?
    let pinning: String
    /// The load average of the last minute, before and after the run.
    let loadBefore: Double?
    var loadAfter: Double?

    init() {
        let support = KernelSupport.probe()
        kernel = support.kernelRelease
        architecture = support.machine
        processors = Processor.all.count
        let information = Self.read("/proc/cpuinfo") ?? ""
        let lines = information.split(separator: "\n")
        func field(_ name: String) -> String? {
            lines.first { $0.hasPrefix(name) }?.split(separator: ":").last.map {
                $0.trimmingCharacters(in: .whitespaces)
            }
        }
        processorName = field("model name") ?? "unknown"
        let isVirtual = field("flags")?.split(separator: " ").contains("hypervisor") ?? false
        self.isVirtual = isVirtual
        clockSource = Self.read("/sys/devices/system/clocksource/clocksource0/current_clocksource") ?? "unknown"
        let setting = Self.read("/sys/kernel/mm/transparent_hugepage/enabled") ?? ""
        transparentHugePages =
            setting.split(separator: "[").last?.split(separator: "]").first.map(String.init) ?? "none"
        let order = Self.read("/sys/module/page_reporting/parameters/page_reporting_order").flatMap { Int($0) }
        pageReportingOrder = order.flatMap { isVirtual && $0 >= 0 ? $0 : nil }
        let two = Processor.all.prefix(2).map { "processor \($0)" }.joined(separator: " and ")
        pinning = "threads are kept on \(two), except in the rows named free"
        loadBefore = Self.load
    }

    /// The load average of the last minute.
    static var load: Double? { read("/proc/loadavg")?.split(separator: " ").first.flatMap { Double($0) } }

    private static func read(_ path: String) -> String? {
        (try? String(contentsOfFile: path, encoding: .utf8))?.trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// What makes the numbers doubtful.
    var warnings: [String] {
        var warnings: [String] = []
        if processors < 2 { warnings.append("one processor: nothing across processors can be measured") }
        if let loadBefore, loadBefore > Double(processors) / 2 {
            warnings.append("the load was \(loadBefore) before the run: other programs take part of the time")
        }
        if let loadAfter, loadAfter > Double(processors) + 0.5 {
            warnings.append("the load was \(loadAfter) after the run: other programs took part of the time")
        }
        return warnings
    }
}
