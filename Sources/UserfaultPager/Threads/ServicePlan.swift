// Decided by the thread that makes a pager.

/// Which threads serve a pager.
struct ServicePlan {
    enum Reading {
        /// Handlers of the pager's own, which serve in place; or none, where the threads that fault serve.
        case ownHandlers
        /// A reader of the runtime, which serves in place.
        case inPlace
        /// A reader of the runtime, which leaves what it reads to loaders.
        case handingOver
    }

    let reading: Reading
    /// The most loaders that work for the pager at once.
    let loaderLimit: Int

    /// For a pager whose threads are its own.
    ///
    /// - Returns: The plan, and which threads its runtime has.
    static func alone(
        _ configuration: PagerConfiguration, sourceIsSlow: Bool, followsForks: Bool, isInThread: Bool
    ) -> (ServicePlan, Runtime.Plan) {
        let workers =
            switch configuration.service {
            case .inline, .inThread: 0
            case .workers(let count): isInThread ? 0 : count
            case .automatic: !isInThread && (sourceIsSlow || followsForks) ? 8 : 0
            }
        var runtime = Runtime.Plan()
        runtime.waiting = configuration.waiting
        runtime.processors = configuration.processors
        runtime.visitors = sourceIsSlow ? 4 : 1
        guard workers > 0 else {
            runtime.pieces = runtime.visitors
            return (ServicePlan(reading: .ownHandlers, loaderLimit: .max), runtime)
        }
        runtime.hasReader = true
        runtime.loaders = workers
        runtime.pieces = piecesAtOnce(workers)
        return (ServicePlan(reading: .handingOver, loaderLimit: .max), runtime)
    }

    /// For a pager of a runtime that is shared.
    ///
    /// - Parameter sourceWaits: The source is slow, and there is no point in asking it without waiting.
    static func shared(
        _ configuration: PagerConfiguration, loaders: Int, sourceWaits: Bool, followsOwnForks: Bool, isInThread: Bool
    ) throws(PagerError) -> ServicePlan {
        if isInThread { return ServicePlan(reading: .ownHandlers, loaderLimit: loaders) }
        switch configuration.service {
        case .inline, .inThread:
            throw .configuration("a pager of a runtime has no threads of its own: automatic, or a number of workers")
        case .workers(let count):
            return ServicePlan(reading: .handingOver, loaderLimit: count)
        case .automatic:
            return ServicePlan(
                reading: sourceWaits || followsOwnForks ? .handingOver : .inPlace, loaderLimit: loaders)
        }
    }

    /// A quarter of the loaders is kept for faults.
    static func piecesAtOnce(_ loaders: Int) -> Int { max(1, loaders - (loaders + 3) / 4) }
}
