import Hummingbird
import UserfaultPager

/// What the control socket says of a session.
struct SessionDocument: Codable, Sendable {
    let id: Int
    let process: Int32
    let bytes: Int
    let regions: Int
    /// Faults that are being served.
    let outstandingFaults: Int
    /// Faults that wait for a thread.
    let queuedFaults: Int
    let totals: Totals
    /// What loads all memory now; absent if nothing does.
    let loading: Loading?
    /// From the reading of a fault to its resolution, in nanoseconds.
    let medianNanoseconds: UInt64
    let p99Nanoseconds: UInt64

    init(_ session: Session) {
        let statistics = session.pager.statistics
        id = session.id
        process = session.process
        bytes = session.byteCount
        regions = session.regionCount
        outstandingFaults = statistics.outstanding
        queuedFaults = statistics.queued
        var totals = Totals()
        totals.add(statistics)
        self.totals = totals
        loading = session.loading
        medianNanoseconds = statistics.service.percentile(50)
        p99Nanoseconds = statistics.service.percentile(99)
    }
}

/// What the control socket says of a machine.
struct MachineDocument: ResponseCodable, Sendable {
    enum State: String, Codable, Sendable {
        /// Nobody has connected, or who had has ended.
        case waiting
        case serving
        /// Nothing changes a page, until it is resumed.
        case paused
    }

    let name: String
    let state: State
    let specification: MachineSpecification
    let sessions: [SessionDocument]
    /// Of all sessions, those that have ended included.
    let totals: Totals

    init(_ specification: MachineSpecification, _ sessions: [Session], _ totals: Totals, isPaused: Bool) {
        name = specification.name
        state = isPaused ? .paused : sessions.isEmpty ? .waiting : .serving
        self.specification = specification
        self.sessions = sessions.map(SessionDocument.init)
        self.totals = totals
    }
}

struct MachineList: ResponseCodable, Sendable {
    let machines: [MachineDocument]
}

/// How many sessions something was done to.
struct SessionCount: ResponseCodable, Sendable {
    let sessions: Int
}

struct ErrorDocument: ResponseCodable, Sendable {
    let error: String
}

/// Where to read a working set.
struct PrefetchRequest: Codable, Sendable {
    let workingSet: String
}
