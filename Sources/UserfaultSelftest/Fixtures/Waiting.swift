import UserfaultFD
import Glibc

/// Waits until a condition holds, giving way to other threads between looks.
///
/// The kernel's own words (fdinfo, thread states) are looked at, so nothing depends on how long anything takes. The
/// limit is generous and grows with how slow and how crowded the host is; a case that needs it has failed.
package enum Waiting {
    /// How long anything may take that should happen at once: half of `--timeout`, where the run has one.
    package static let patience: Duration =
        getenv(variable).flatMap { Int(String(cString: $0)) }.map { .seconds(max(1, $0 / 2)) } ?? ordinary

    /// The patience where no option says otherwise.
    package static let ordinary = Slowness.stretched(.seconds(5))

    /// The environment variable by which the runner tells a result's process of `--timeout`, in seconds.
    static let variable = "UFFD_SELFTEST_TIMEOUT"

    /// The patience as calls such as `poll` take it.
    static var milliseconds: CInt { CInt(clamping: Int(patience.inSeconds * 1000)) }

    /// Waits for a condition.
    ///
    /// - Parameter what: What is waited for, for the failure.
    package static func until(
        _ what: @autoclosure () -> String,
        within limit: Duration = patience,
        file: String = #fileID,
        line: Int = #line,
        _ condition: () throws -> Bool
    ) throws {
        let start = ContinuousClock.now
        var last = start
        var limit = limit
        // A limit that the user has set is not stretched.
        var isExtensible = getenv(variable) == nil
        var looks = 0
        while try !condition() {
            let now = ContinuousClock.now
            // Looks that are so far apart show that the machine or this process was suspended.
            if now - last > .seconds(1) { limit += now - last }
            last = now
            if ContinuousClock.now >= start + limit, isExtensible {
                isExtensible = false
                limit = limit * Crowding.factor
            }
            guard ContinuousClock.now < start + limit else {
                throw CaseFailure(
                    expected: what(), seen: "still not so after \(limit)", file: file, line: line)
            }
            looks += 1
            giveWay(afterLooks: looks)
        }
    }

    /// Lets other threads run: soon again at first, and then with a pause.
    ///
    /// A virtual processor that never pauses may keep the host's thread which the other one needs.
    package static func giveWay(afterLooks looks: Int) {
        if looks < 256 { NativeThread.yield() } else { Threads.pause() }
    }
}
