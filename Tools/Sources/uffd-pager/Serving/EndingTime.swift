/// How long the end of the program takes.
///
/// systemd must wait longer (`TimeoutStopSec=`): what kills the server loses its clients.
struct EndingTime {
    /// What there is time for beside loading: to keep what was loaded, and to answer requests.
    static let rest = Duration.seconds(5)

    private let deadline: ContinuousClock.Instant

    init(loading limit: Duration) { deadline = .now + limit }

    /// How long what was loaded may take from now on to be kept.
    var left: Duration { max(ContinuousClock.now.duration(to: deadline), Self.rest) }
}
