import CPagerSupport
import Glibc
import Logging

/// What systemd wants to know of a service; nothing of it happens elsewhere.
enum Systemd {
    /// Tells a state, such as `READY=1`.
    static func notify(_ state: String, logger: Logger) {
        let answer = cps_notify(state, nil, 0, KeepError.seconds)
        if answer < 0 {
            logger.warning("systemd cannot be told", metadata: ["error": "\(String(cString: strerror(-answer)))"])
        }
    }
}
