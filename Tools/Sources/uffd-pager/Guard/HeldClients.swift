import ArgumentParser
import CPagerSupport
import Glibc

/// Clients that systemd has kept, in a start of the service that fails because its arguments are wrong.
enum HeldClients {
    /// How long a start takes, so that systemd does not reach its limit of starts while somebody corrects the arguments.
    private static let milliseconds: Int32 = 10_000

    /// Waits for a while, so that systemd starts the service again, perhaps with other arguments; kills the clients if the
    /// service is stopped: systemd lets go of their descriptors then.
    ///
    /// - Parameter text: What is wrong, which is told if there are clients.
    /// - Returns: The exit code if they were killed.
    static func hold(because text: String) -> ExitCode? {
        try? PassedDescriptors.prepare(for: getpid())
        var shelf = PassedDescriptors.takeAll()
        guard !shelf.clients.isEmpty || shelf.hasArrivals else { return nil }
        var before = sigset_t()
        let signals = cps_signals(&before)
        guard signals >= 0 else { return nil }
        Standard.complain(text)
        Standard.complain(
            "error: clients wait until the service starts with other arguments clients=\(shelf.clients.count)")
        var state = pollfd(fd: signals, events: Int16(POLLIN), revents: 0)
        var isFromTerminal: Int32 = 0
        guard poll(&state, 1, milliseconds) > 0, cps_next_signal(signals, &isFromTerminal) != SIGHUP else { return nil }
        Standard.complain("error: the service is stopped, and its clients are killed clients=\(shelf.clients.count)")
        shelf.endClients()
        return ExitCode(Guard.serverDied)
    }
}
