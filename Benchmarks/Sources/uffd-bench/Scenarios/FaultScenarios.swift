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
                for place in Place.allCases { scenarios.append(scenario(call, waiting, place)) }
            }
        }
        return scenarios
    }

    private static func scenario(
        _ call: HandlerRequest.Call, _ waiting: HandlerRequest.Waiting, _ place: Place
    ) -> Scenario {
        Scenario("fault/\(call.rawValue)/\(waiting.rawValue)/\(place.rawValue)", .fault) { settings in
            if place == .twoCores && Processor.all.count < 2 {
                throw Unavailable(reason: "there is only one processor")
            }
            if place == .sameCore && waiting == .spin {
                throw Unavailable(
                    reason: "a handler that never sleeps would keep the faulting thread off their processor")
            }
            let pages = settings.count(2000, quick: 500)
            let memory = try Memory(call == .continue ? .shared : .anonymous, pages: pages)
            let request = HandlerRequest(
                waiting: waiting, call: call, range: memory.view.range, source: memory.source.range.start,
                processor: place.processors.handler)
            func touch() -> Sample {
                Processor.kept(on: place.processors.toucher) {
                    var latencies = [UInt32](repeating: 0, count: pages)
                    let start = cbb_now()
                    cbb_touch(memory.base, pages, memory.pageSize, nil, call == .copy ? 1 : 0, &latencies)
                    return Sample(cbb_now() - start, units: pages, latencies: latencies)
                }
            }
            let modes: UserfaultFD.RegisterModes = call == .continue ? .minor : .missing
            func handled(by language: Handlers.Language, _ waiting: HandlerRequest.Waiting) throws -> Sample {
                var request = request
                request.waiting = waiting
                try memory.empty()
                return try Handlers.serving(language, [request], modes: modes) { touch() }
            }
            func served() throws -> Sample {
                try memory.empty()
                return try PagerRun.serving(request) { touch() }
            }
            // Across processors a wake-up costs as much as it likes: reported, and no gate.
            let gated = place == .sameCore
            let c = Variant("c") { try handled(by: .c, waiting) }
            let swift = Variant("swift", .time(atMost: 1.05, gated: gated)) { try handled(by: .swift, waiting) }
            guard waiting == .adaptive else {
                return [c, swift, Variant("pager", .time(atMost: 1.10, gated: gated)) { try served() }]
            }
            // Most programs poll and read. On one processor it is the best that there is, and the pager finds that out,
            // while a loop that always looks first keeps the other thread from running.
            let polling = Variant("c, polling") { try handled(by: .c, .poll) }
            let pager =
                switch place {
                case .sameCore: Variant("pager", .time(), .time(of: "c, polling", atMost: 1.10)) { try served() }
                case .twoCores:
                    Variant(
                        "pager", .time(atMost: 1.10, gated: false), .rate(of: "c, polling", atLeast: 3, gated: false)
                    ) { try served() }
                case .free: Variant("pager", .time(), .rate(of: "c, polling")) { try served() }
                }
            return [c, swift, pager, polling]
        }
    }
}
