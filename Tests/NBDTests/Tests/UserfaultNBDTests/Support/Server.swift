import Foundation
import Testing

/// A server process of a test's own, on a socket in a folder of its own; both go with it.
final class Server: @unchecked Sendable {
    let folder: URL
    let socket: String
    /// What is there once it listens: the socket, or a file that is written then.
    private let sign: String
    private let program: String
    private let arguments: [String]
    private var process: Process?

    /// - Parameters:
    ///   - program: The server's name.
    ///   - arguments: What it gets, for the socket's path.
    init(
        _ program: String, in folder: URL? = nil, isReadyAt sign: String? = nil,
        _ arguments: (_ socket: String) -> [String]
    ) throws {
        self.folder = try folder ?? Self.makeFolder()
        socket = self.folder.appendingPathComponent("socket").path
        self.sign = sign ?? socket
        self.program = program
        self.arguments = arguments(socket)
        try start()
    }

    deinit {
        kill()
        try? FileManager.default.removeItem(at: folder)
    }

    static func makeFolder() throws -> URL {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("uffd-nbd-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        return folder
    }

    /// Starts it, and waits until it listens.
    func start() throws {
        try? FileManager.default.removeItem(atPath: sign)
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [program] + arguments
        process.standardInput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        self.process = process
        let path = sign
        #expect(wait { Self.isReady(path) || !process.isRunning }, "\(program) does not start")
    }

    /// Whether somebody listens on a socket, or has written a file in its place.
    private static func isReady(_ path: String) -> Bool {
        var status = stat()
        guard stat(path, &status) == 0 else { return false }
        guard status.st_mode & S_IFMT == S_IFSOCK else { return status.st_size > 0 }
        let probe = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(probe) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(probe, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
            }
        }
    }

    /// Has it take in nothing any more, and answer nothing, until it is killed.
    func freeze() {
        guard let process else { return }
        Glibc.kill(process.processIdentifier, SIGSTOP)
        // One of its threads may still answer until all have stopped.
        let tasks = "/proc/\(process.processIdentifier)/task"
        #expect(
            wait {
                let threads = (try? FileManager.default.contentsOfDirectory(atPath: tasks)) ?? []
                return threads.allSatisfy { thread in
                    (try? String(contentsOfFile: "\(tasks)/\(thread)/status", encoding: .utf8))?.contains("State:\tT")
                        == true
                }
            })
    }

    /// Ends it as a crash would.
    func kill() {
        guard let process else { return }
        Glibc.kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
        self.process = nil
    }

    /// The address of its export.
    var uri: String { "nbd+unix:///?socket=\(socket)" }

    /// nbdkit in the foreground, with filters in front of a plugin.
    static func nbdkit(in folder: URL? = nil, _ arguments: String...) throws -> Server {
        try Server("nbdkit", in: folder) { ["-f", "-U", $0] + arguments }
    }

    /// An export of which each 64-bit word is its own offset, big-endian.
    static func pattern(_ size: String = "64M", _ filters: String..., parameters: [String] = []) throws -> Server {
        try Server("nbdkit") { ["-f", "-U", $0] + filters.map { "--filter=\($0)" } + ["pattern", size] + parameters }
    }

    /// nbdkit on a port of its own of this machine.
    static func onPort(_ arguments: String...) throws -> (server: Server, port: Int) {
        for _ in 0..<20 {
            let port = Int.random(in: 20000..<32000)
            let server = try Server("nbdkit") {
                ["-f", "-i", "127.0.0.1", "-p", "\(port)", "--pidfile", $0] + arguments
            }
            if FileManager.default.fileExists(atPath: server.socket) { return (server, port) }
        }
        throw CocoaError(.fileNoSuchFile)
    }

    /// A server that breaks the protocol.
    static func misbehaving(_ flaw: String) throws -> Server {
        let script = try #require(Bundle.module.url(forResource: "misbehaving-server", withExtension: "py"))
        return try Server("python3") { [script.path, $0, flaw] }
    }
}

/// Runs a program to its end.
@discardableResult
func run(_ arguments: String..., input: String? = nil) throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = arguments
    let output = Pipe()
    process.standardOutput = output
    process.standardError = output
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    try #require(process.terminationStatus == 0, "\(arguments.joined(separator: " ")): \(text)")
    return text
}

/// Waits until something is so.
func wait(seconds: Double = 20, until isSo: () -> Bool) -> Bool {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while !isSo() {
        guard ContinuousClock.now < deadline else { return false }
        usleep(1000)
    }
    return true
}
