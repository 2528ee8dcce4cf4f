import ArgumentParser
import Glibc
import SystemPackage
import UserfaultFD

/// This program once more, with the same arguments, as a child.
struct Child: ~Copyable {
    let process: ProcessHandle
    let id: pid_t
    /// Over which it says what is to be kept.
    let socket: FileDescriptor

    /// - Parameters:
    ///   - program: The file to execute.
    ///   - link: The variable that tells the child the number of its end of the socket.
    ///   - inherited: Further variables, and the descriptors whose numbers they tell.
    ///   - shelf: What the child gets; it stays the caller's.
    ///   - mask: Its signals.
    init(
        _ program: String, link: String, inherited: [(variable: String, number: Int32)] = [], passing shelf: Shelf,
        mask: sigset_t
    ) throws {
        var sockets: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue | SOCK_CLOEXEC.rawValue), 0, &sockets) == 0
        else { throw Failure(.system, "no socket for the server: \(String(cString: strerror(errno)))") }
        defer { close(sockets[1]) }
        let id: pid_t
        let process: ProcessHandle
        do {
            id = try Self.spawn(program, [(link, sockets[1])] + inherited, shelf, mask)
            process = try ProcessHandle(id: id)
        } catch {
            close(sockets[0])
            throw error
        }
        self.id = id
        self.process = process
        socket = FileDescriptor(rawValue: sockets[0])
    }

    deinit { close(socket.rawValue) }

    private static func spawn(
        _ program: String, _ links: [(variable: String, number: Int32)], _ shelf: Shelf, _ mask: sigset_t
    ) throws -> pid_t {
        let passed = shelf.kept.flatMap { name, numbers in numbers.map { (name, $0) } }
        let names = try PassedNames(passed.map(\.0))
        defer { extendLifetime(names) }
        let links = links + [(variable: PassedNames.variable, number: names.number)]
        let sources = passed.map(\.1) + links.map(\.number)
        let end = PassedDescriptors.first + Int32(sources.count)
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        var moved: [Int32] = []
        defer { for number in moved { close(number) } }
        for (source, target) in zip(sources, PassedDescriptors.first..<end) {
            var source = source
            // One that is in the way of another is moved out of it first.
            if source < end {
                source = fcntl(source, F_DUPFD_CLOEXEC, end)
                guard source >= 0 else { throw refusal(errno) }
                moved.append(source)
            }
            posix_spawn_file_actions_adddup2(&actions, source, target)
        }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var mask = mask
        posix_spawnattr_setsigmask(&attributes, &mask)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var variables = [
            (PassedDescriptors.processVariable, "\(getpid())"), (PassedDescriptors.countVariable, "\(passed.count)"),
        ]
        for (index, link) in links.enumerated() {
            variables.append((link.variable, "\(PassedDescriptors.first + Int32(passed.count + index))"))
        }
        // A version from before there was the file of names finds them here.
        variables.append((PassedDescriptors.namesVariable, passed.map(\.0).joined(separator: ":")))
        for (name, value) in variables { setenv(name, value, 1) }
        defer { for (name, _) in variables { unsetenv(name) } }
        let arguments = CommandLine.arguments.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        var id: pid_t = 0
        var error = posix_spawn(&id, program, &actions, &attributes, arguments, environ)
        if error == E2BIG {
            unsetenv(PassedDescriptors.namesVariable)
            error = posix_spawn(&id, program, &actions, &attributes, arguments, environ)
        }
        guard error == 0 else { throw refusal(error) }
        return id
    }

    private static func refusal(_ error: Int32) -> Failure {
        Failure(.system, "the server cannot be started: \(String(cString: strerror(error)))")
    }

    /// Waits for its end, which has come.
    func end() -> ProcessEnd {
        var status: Int32 = 0
        while waitpid(id, &status, 0) < 0 && errno == EINTR {}
        return ProcessEnd(status: status)
    }
}

/// How a process has ended.
struct ProcessEnd: Equatable {
    /// 0 if it has ended by itself.
    let signal: Int32
    let code: Int32

    init(status: Int32) {
        signal = status & 0x7f
        code = status >> 8 & 0xff
    }

    /// The exit code of a process that ends because this one has.
    var ownCode: Int32 {
        switch signal {
        case 0: return code
        // Told to end before it began to serve: what a shell calls that.
        case SIGTERM, SIGINT, SIGHUP: return 128 + signal
        default:
            Standard.complain("error: the server has died signal=\(signal)")
            return Guard.serverDied
        }
    }
}

/// What happens to the child of a process that keeps something for it.
enum ChildEvent {
    case signal(number: Int32, isFromTerminal: Bool)
    /// It has put or removed something.
    case message
    /// Nobody is left that could.
    case socketClosed
    case ended
}
