import Logging

extension Logger {
    /// A logger whose lines say which session they are about.
    func of(_ machine: String, _ session: Int, _ process: Int32) -> Logger {
        var logger = self
        logger[metadataKey: "machine"] = "\(machine)"
        logger[metadataKey: "session"] = "\(session)"
        logger[metadataKey: "process"] = "\(process)"
        return logger
    }
}
