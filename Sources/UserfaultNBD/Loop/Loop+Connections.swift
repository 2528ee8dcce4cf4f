#if NBD
internal import Synchronization
internal import SystemPackage
internal import UserfaultFD

// How connections come and go.

extension Loop {
    /// Makes connections that are due, and gives up those that take too long.
    mutating func attend(at now: MonotonicInstant) {
        for connection in connections {
            switch connection.state {
            case .waiting(let until) where until <= now:
                do throws(NBDError) {
                    try connection.connect(to: uri, configuration, in: round) { [mailbox] in mailbox.wake.signal() }
                    try goOn(connection)
                } catch {
                    lose(connection, error)
                }
            case .connecting(let until):
                do throws(NBDError) {
                    try goOn(connection)
                    if connection.isConnecting, until <= now { throw Self.tooLate(connection) }
                } catch {
                    lose(connection, error)
                }
            case .ready where connection.inFlight > 0 && connection.lastProgress + configuration.responseTimeout <= now:
                lose(connection, NBDError(.connection, message: "the server did not reply in time"))
            case .waiting, .ready: break
            }
        }
    }

    private mutating func goOn(_ connection: Connection) throws(NBDError) {
        if let error = connection.takeDialed() { throw error }
        // A server that is quick has answered everything while it was dialed, and sends nothing more.
        if !connection.isDialing, connection.isNegotiated { try welcome(connection) }
    }

    private static func tooLate(_ connection: Connection) -> NBDError {
        NBDError(
            .connect, errno: .timedOut,
            message: connection.isDialing
                ? "the server's address was not found in time: does the resolver answer?"
                : "the server did not finish the handshake in time")
    }

    /// Reads or writes what a connection can: one reply, and those that have come already.
    ///
    /// libnbd must not be told to read where nothing is: it would then send nothing before the next reply. So the kernel is
    /// asked how much there is, and not for each reply whether there is one.
    ///
    /// - Parameter most: Not more replies.
    /// - Returns: How many were read.
    mutating func advance(_ connection: Connection, _ ready: Int16, most: Int) -> Int {
        var waiting = most > 1 && ready.isReadable ? connection.bytesWaiting : 0
        let now = MonotonicInstant.now
        var count = 0
        while true {
            do throws(NBDError) {
                try connection.advance(ready, at: now)
                if connection.isConnecting, connection.isNegotiated { try welcome(connection) }
            } catch {
                lose(connection, error)
                return count + 1
            }
            let bytes = connection.lastReplyBytes
            settle(connection)
            count += 1
            waiting -= bytes ?? waiting
            guard waiting > 0, count < most, connection.isReady, !mailbox.isUrgent else { return count }
        }
    }

    private mutating func welcome(_ connection: Connection) throws(NBDError) {
        let found = try connection.export()
        if let export, found.byteCount != export.byteCount {
            // Offsets mean something else now: better no page than a wrong one.
            throw NBDError(
                .connect, message: "the export has \(found.byteCount) bytes; it had \(export.byteCount)")
        }
        connection.becomeReady()
        mailbox.counters.connections.add(1, ordering: .relaxed)
        report(.connected(connection.number))
        guard export == nil else { return }
        export = found
        map = BlockMap(byteCount: found.byteCount)
        // There are no requests before it is known.
        queue = RequestQueue(most: mostBytesAtOnce(found))
        mailbox.opening.set(.success(found))
        guard found.allowsManyConnections else { return }
        for number in 1..<max(1, configuration.connections) { connections.append(Connection(number: number)) }
    }

    /// Lets go of connections that turned out to be gone while something was sent.
    mutating func dropTheGone() {
        for connection in connections where connection.isReady && connection.isGone {
            lose(connection, NBDError(.connection, message: "the connection was lost while a request was sent"))
        }
    }

    mutating func lose(_ connection: Connection, _ error: NBDError) {
        let wasReady = connection.isReady
        connection.close { failures in
            min(configuration.maximumBackOff, configuration.backOff * (1 << min(failures - 1, 20)))
        }
        if wasReady {
            report(.disconnected(connection.number, error))
        } else if connection.lastFailure != error {
            connection.lastFailure = error
            report(.notConnected(connection.number, error))
        }
        settle()
        guard export != nil else {
            // The source was never open: whoever wanted it decides.
            mailbox.opening.set(.failure(error))
            connections = []
            return
        }
        guard !connections.contains(where: \.isReady) else { return }
        // Who comes back may have another content.
        map.removeAll()
        // An attempt of the source is an attempt for each page that has waited for it.
        if connection.failures > 0 { failAll(error, upTo: connection.attempt) }
    }
}
#endif
