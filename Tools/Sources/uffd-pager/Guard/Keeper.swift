import ArgumentParser
import CPagerSupport
import Glibc
import SystemPackage
import UserfaultFD

/// The process between the guard and the server: it keeps what a successor needs, and starts one when the server dies.
///
/// It does nothing else: it kills nobody but clients that follow forks, whom no successor can serve, and knows nothing else of
/// what it keeps. When it ends, its guard decides.
struct Keeper: ~Copyable {
    private let program: String
    private let guardLink: KeepLink
    private var watch: ChildWatch
    private var shelf: Shelf
    private var restarts: Restarts
    /// The starts since this process was told to end: it does end, however many there may be otherwise.
    private var lastRestarts = Restarts(limit: 10)
    private var isStopping = false
    /// Whether the last server ended by itself, or could not be started: this process' own program serves next.
    private var isProgramUseless = false

    init(_ survival: SurvivalOptions) throws {
        try PassedDescriptors.prepare(for: getppid())
        let watch = try ChildWatch()
        guard let link = KeepLink(Keepers.guardVariable) else {
            throw Failure(.system, "the guard's socket is not there")
        }
        guardLink = link
        self.watch = watch
        shelf = PassedDescriptors.takeAll()
        restarts = Restarts(limit: survival.restartLimit)
        program = Self.path
    }

    /// The path of this program: a newer one may be there later.
    private static var path: String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 4097) { room in
            let count = readlink("/proc/self/exe", room.baseAddress!, room.count)
            return String(decoding: room.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
    }

    /// Starts one server after the other.
    ///
    /// Told to end, it still starts one for what a server has left that was killed: only a server can load the memory that
    /// clients miss.
    ///
    /// - Returns: The program's exit code.
    mutating func stand() throws -> Int32 {
        while true {
            guard restarts.note(), !isStopping || lastRestarts.note() else { return giveUp() }
            var end: ProcessEnd?
            let isSuccessor = shelf.isForSuccessor
            do {
                end = try serve()
            } catch let failure as Failure {
                // The file may be replaced just now.
                Standard.complain("error: \(failure.description)")
            }
            let isLeft = !shelf.clients.isEmpty
            // An orderly end leaves no machines; a successor that has left them was not the one that was needed.
            let isRefused = isSuccessor && shelf.isForSuccessor && !isProgramUseless
            if let end, end.signal == 0, !isLeft, !isRefused { return end.code }
            if isStopping, end?.signal == 0 || !shelf.isForSuccessor {
                return isLeft ? Guard.serverDied : end?.ownCode ?? Guard.serverDied
            }
            // Arguments are the same, but not what they mean to another version. One that was killed has begun.
            isProgramUseless = (end?.signal ?? 0) == 0
            Standard.complain(
                "error: the server has died, and a successor is started signal=\(end?.signal ?? 0) "
                    + "clients=\(shelf.clients.count)")
            try waitForNextStart()
        }
    }

    private func giveUp() -> Int32 {
        Standard.complain(
            "error: the server has died too often: no successor is started clients=\(shelf.clients.count)")
        return Guard.serverDied
    }

    /// Serves by a child, until it has ended.
    private mutating func serve() throws -> ProcessEnd {
        let child = try Child(
            !isProgramUseless && access(program, X_OK) == 0 ? program : "/proc/self/exe", link: Keepers.keeperVariable,
            inherited: [(Keepers.guardVariable, guardLink.number)], passing: shelf,
            mask: watch.mask(forChildWith: shelf))
        try watch.watch(child)
        if isStopping { try? child.process.kill(signal: SIGTERM) }
        var isOpen = true
        while true {
            switch try watch.next(socket: child.socket, &shelf) {
            case .signal(let number, let isFromTerminal):
                if number == SIGHUP && !isFromTerminal {
                    restarts.forgetLast()
                    try? child.process.kill()
                    continue
                }
                isStopping = true
                if !isFromTerminal { try? child.process.kill(signal: number) }
            case .socketClosed:
                isOpen = false
                watch.forgetSocket(of: child)
            case .ended:
                // What it sent before it died.
                while isOpen && shelf.take(messageFrom: child.socket) {}
                watch.forgetProcess(of: child)
                if isOpen { watch.forgetSocket(of: child) }
                let end = child.end()
                let count = shelf.killForking()
                if count > 0 {
                    shelf.noteFailure()
                    Standard.complain("error: the server has died, and clients that fork are killed clients=\(count)")
                }
                return end
            case .message, nil: continue
            }
        }
    }

    /// Waits, but not after this process was told to end meanwhile.
    private mutating func waitForNextStart() throws {
        while let event = try watch.next(timeout: restarts.pause, socket: nil, &shelf) {
            guard case .signal(let number, let isFromTerminal) = event, number != SIGHUP || isFromTerminal
            else { continue }
            isStopping = true
            return
        }
    }
}
