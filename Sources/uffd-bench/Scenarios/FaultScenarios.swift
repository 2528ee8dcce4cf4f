import CBenchBaseline
import SystemPackage
import UserfaultFD

/// `fault/CALL/WAITING/PLACE`: one thread touches page after page, another resolves each fault.
enum FaultScenarios {
    enum Place: String, CaseIterable {
        case sameCore = "same-core"
        case twoCores = "two-cores"
        case free

        /// The processors of the touching thread and of the handler.
        var processors: (toucher: Int?, handler: Int?) {
            let all = Processor.all
            return switch self {
            case .sameCore: (all.first, all.first)
            case .twoCores: (all.first, all.count > 1 ? all[1] : nil)
            case .free: (nil, nil)
            }
        }
    }

    static var all: [Scenario] {
        var scenarios: [Scenario] = []
        for call in [HandlerRequest.Call.copy, .continue, .zeropage] {
            for waiting in HandlerRequest.Waiting.allCases {
                for place in Place.allCases {
                    // A handler that never sleeps keeps the thread off their processor whose fault it waits for.
                    if waiting == .spin && place == .sameCore { continue }
                    scenarios.append(scenario(call, waiting, place))
                }
            }
        }
        return scenarios + [signals]
    }

    private static func scenario(
        _ call: HandlerRequest.Call, _ waiting: HandlerRequest.Waiting, _ place: Place
    ) -> Scenario {
        // Across processors a wake-up costs as much as it likes: reported, and no promise.
        let gates = place == .sameCore ? ["swift": 1.05, "pager": 1.10] : [:]
        return Scenario("fault/\(call.rawValue)/\(waiting.rawValue)/\(place.rawValue)", .fault, gates: gates) {
            settings in
            if place == .twoCores && Processor.all.count < 2 { throw Unavailable(reason: "there is one processor") }
            let pages = settings.count(2000, quick: 400)
            let memory = try Memory(call == .continue ? .shared : .anonymous, pages: pages)
            let request = HandlerRequest(
                waiting: waiting, call: call, range: memory.view.range, source: memory.source.range.start,
                processor: place.processors.handler)
            func touch() -> Sample {
                Processor.pin(place.processors.toucher)
                var latencies = [UInt32](repeating: 0, count: pages)
                let start = cbb_now()
                cbb_touch(memory.base, pages, memory.pageSize, nil, call == .copy ? 1 : 0, &latencies)
                let time = cbb_now() - start
                Processor.pin(nil)
                return Sample(nanoseconds: Double(time) / Double(pages), latencies: latencies)
            }
            let modes: UserfaultFD.RegisterModes = call == .continue ? .minor : .missing
            func handled(by language: Handlers.Language, _ waiting: HandlerRequest.Waiting? = nil) throws -> Sample {
                var request = request
                if let waiting { request.waiting = waiting }
                try memory.empty()
                let handlers = try Handlers(language, [request], modes: modes)
                let sample = touch()
                try handlers.stop()
                return sample
            }
            var variants = [
                Variant("c") { try handled(by: .c) },
                Variant("swift") { try handled(by: .swift) },
                Variant("pager") {
                    try memory.empty()
                    return try PagerRun.serving(request) { touch() }
                },
            ]
            // What most programs do: poll, and read.
            if waiting == .adaptive { variants.append(Variant("(c that polls)") { try handled(by: .c, .poll) }) }
            return variants
        }
    }

    /// What there is without a second thread: the faulting thread resolves its own fault.
    private static var signals: Scenario {
        Scenario("fault/signal", .fault) { settings in
            let pages = settings.count(20000, quick: 2000)
            let memory = try Memory(.anonymous, pages: pages)
            let uffd = try UserfaultFD(features: .sigbus)
            try uffd.register(memory.view.range, modes: .missing)
            let shared = Registered(uffd)
            return [
                Variant("(SIGBUS, COPY)") {
                    try memory.empty()
                    let time = shared.uffd.withUnsafeDescriptor {
                        cbb_touch_sigbus(
                            $0.rawValue, memory.base, pages, memory.pageSize, UInt64(memory.source.range.start))
                    }
                    return Sample(nanoseconds: Double(time) / Double(pages))
                },
                Variant("(SIGSEGV, mprotect)") {
                    try shared.uffd.unregister(memory.view.range)
                    memory.populate()
                    var dirty: UInt64 = 0
                    let time = cbb_touch_sigsegv(memory.base, pages, memory.pageSize, &dirty)
                    try memory.view.protect(.readWrite)
                    try shared.uffd.register(memory.view.range, modes: .missing)
                    return Sample(nanoseconds: Double(time) / Double(pages))
                },
            ]
        }
    }
}

/// A userfaultfd that several closures use.
final class Registered: Sendable {
    let uffd: UserfaultFD
    init(_ uffd: consuming UserfaultFD) { self.uffd = uffd }
}
