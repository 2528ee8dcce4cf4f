import ArgumentParser
import CPagerSupport
import Glibc
import SystemPackage

/// The process that serves, under its guard.
enum Server {
    /// What is done before it has a second thread.
    static func prepare() throws {
        try PassedDescriptors.prepare(for: getppid())
        let answer = cps_drop_capabilities()
        guard answer >= 0 else {
            throw Failure(.system, "capabilities cannot be given up: \(Errno(rawValue: -answer))")
        }
        // Others may die of a signal until they listen: they have no clients.
        if PassedDescriptors.isSuccessor { _ = StopSignals.shared }
    }
}
