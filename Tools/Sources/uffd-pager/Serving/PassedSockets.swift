import ArgumentParser
import CPagerSupport
import Glibc
import Logging

extension PassedDescriptors {
    /// Finds a socket that systemd has passed for another path: who connects there would wait for ever.
    ///
    /// - Throws: ``Failure`` with ``ExitCode/uncreatable``. A successor goes on all the same: its clients need it.
    static func checkSockets(listeningAt path: String, _ logger: Logger) throws {
        guard let unused = unusedSockets.first else { return }
        let text = "systemd has passed the socket \(unused), and --socket is \(path): make them the same"
        guard isSuccessor else { throw Failure(.uncreatable, text) }
        logger.error("\(text)")
    }
}
