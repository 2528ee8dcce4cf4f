import ArgumentParser
import CPagerSupport
import Glibc
import SystemPackage
import UserfaultFD

/// The process that starts the server and outlives it: it keeps a duplicate of every client's userfaultfd, and does nothing
/// else.
///
/// When nobody is left who could serve them, clients would wait for ever, or read zeros if nobody else had their
/// descriptors. The guard kills them first: nobody else does. With a ``Keeper`` between it and the server, that is the case
/// only when both are gone; with systemd's store, only when the service is stopped, or has died too often.
struct Guard: ~Copyable {
    /// The exit code if the server died and clients had to be killed (EX_SOFTWARE).
    static let serverDied: Int32 = 70
    /// The exit code if systemd is to start a successor (EX_TEMPFAIL).
    static let successorIsDue: Int32 = 75

    private let survival: SurvivalOptions?
    private let child: Child
    private var watch: ChildWatch
    private var shelf: Shelf
    /// When the service has started, if its manager has to remember.
    private let restarts: RestartsFile?
    private var isStopping = false
    private var hasChildEnded = false

    /// Starts the program again, with the same arguments, as the server, or as the keeper that starts it.
    ///
    /// - Parameter further: Descriptors that are the child's alone from now on.
    init(_ survival: SurvivalOptions?, passingOn further: [(variable: String, number: Int32)]) throws {
        try PassedDescriptors.prepare(for: getpid())
        var shelf = PassedDescriptors.takeAll()
        let watch = try ChildWatch()
        let restarts = survival?.fdStore == true ? try RestartsFile(&shelf) : nil
        if let survival, let restarts {
            var starts = Restarts(limit: survival.restartLimit)
            if !starts.note(in: restarts.file), !shelf.clients.isEmpty {
                Standard.complain(
                    "error: the service has died too often, and its clients are killed clients=\(shelf.clients.count)")
                shelf.endClients()
                shelf.noteFailure()
            }
        }
        // A server whose keeper has died is this process' child then, so that its exit code is known.
        if survival?.supervise == true { cps_adopt_orphans() }
        let own = further.map(\.number).filter { $0 > STDERR_FILENO }
        for number in own { _ = fcntl(number, F_SETFD, FD_CLOEXEC) }
        let child = try Child(
            "/proc/self/exe", link: Keepers.guardVariable, inherited: further, passing: shelf,
            mask: watch.mask(forChildWith: shelf))
        for number in own { close(number) }
        try watch.watch(child)
        for (name, numbers) in shelf.kept where KeptName.isClient(name) {
            _ = shelf.take(name)
            for number in numbers {
                if [.userfaultfd, .process].contains(DescriptorKind(of: number)) {
                    shelf.put(name, [number])
                } else {
                    close(number)
                }
            }
        }
        for name in shelf.kept.keys where !KeptName.isClient(name) && !KeptName.isArrival(name) { shelf.remove(name) }
        self.survival = survival
        self.child = child
        self.watch = watch
        self.shelf = shelf
        self.restarts = restarts
    }

    /// Keeps what the server gives it, until nobody is left who could serve.
    ///
    /// - Returns: The program's exit code.
    mutating func stand() throws -> Int32 {
        var end: ProcessEnd?
        var isOpen = true
        while end == nil || isOpen {
            switch try watch.next(socket: child.socket, &shelf) {
            case .signal(let number, let isFromTerminal): take(number, isFromTerminal)
            case .socketClosed:
                isOpen = false
                watch.forgetSocket(of: child)
            case .ended:
                end = child.end()
                hasChildEnded = true
                watch.forgetProcess(of: child)
                if server != nil { Standard.complain("error: the keeper has died; its server goes on without one") }
            case .message, nil: continue
            }
        }
        var status: Int32 = 0
        while waitpid(-1, &status, 0) > 0 { end = ProcessEnd(status: status) }
        return self.end(end!)
    }

    /// The pidfd of a server that lives.
    private var server: Int32? {
        guard survival?.supervise == true, let number = shelf.kept[KeptName.server]?.last else { return nil }
        var state = pollfd(fd: number, events: Int16(POLLIN), revents: 0)
        return poll(&state, 1, 0) == 0 ? number : nil
    }

    /// Hands signals on; the terminal's come to the server by themselves.
    private mutating func take(_ signal: Int32, _ isFromTerminal: Bool) {
        if signal == SIGHUP, !isFromTerminal, let survival, survival.isOn, !survival.supervise || hasChildEnded {
            replaceServer(survival)
            return
        }
        if signal != SIGHUP || isFromTerminal { isStopping = true }
        guard !isFromTerminal else { return }
        if !hasChildEnded {
            try? child.process.kill(signal: signal)
        } else if let server {
            _ = cps_signal_process(server, signal)
        }
    }

    /// Has a server without a keeper replaced by the manager: its successor is another program, if its file is.
    private func replaceServer(_ survival: SurvivalOptions) {
        guard let restarts else {
            Standard.complain("error: the server is not replaced: its keeper has died")
            return
        }
        var starts = Restarts(limit: survival.restartLimit)
        starts.forgetLast(in: restarts.file)
        if !hasChildEnded {
            try? child.process.kill()
        } else if let server {
            _ = cps_signal_process(server, SIGKILL)
        }
    }

    /// The server has ended: kills what it has left behind, unless a successor comes.
    private mutating func end(_ end: ProcessEnd) -> Int32 {
        let isLeft = survival?.fdStore == true && !isStopping && !(end.signal == 0 && end.code == Self.serverDied)
        var count = shelf.clients.count
        // Whoever takes a message that was not read takes it from a successor too.
        if !isLeft { count += shelf.endArrivals() }
        guard count > 0 else { return end.ownCode }
        let what = isLeft ? "are left to a successor" : "are killed"
        Standard.complain("error: the server has died, and its clients \(what) signal=\(end.signal) clients=\(count)")
        if isLeft {
            if shelf.killForking() > 0 {
                shelf.noteFailure()
                if let number = shelf.kept[KeptName.failed]?.first {
                    _ = cps_notify(StoreMessage.put(KeptName.failed).text, [number], 1, KeepError.seconds)
                }
            }
            return Self.successorIsDue
        }
        shelf.endClients()
        return Self.serverDied
    }
}
