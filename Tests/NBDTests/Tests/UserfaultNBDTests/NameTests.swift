import CNBDTestSupport
import Foundation
import Testing
import UserfaultFD
import UserfaultNBD
import UserfaultPager

/// Servers whose name has to be looked up, and resolvers that do not answer.
///
/// The file with the names of hosts, or that with the resolvers, is a pipe that nobody writes to: whoever reads it waits.
@Suite(.serialized, .timeLimit(.minutes(2)), .enabled(if: geteuid() == 0, "needs root"))
struct NameTests {
    private static let page = Served.page

    /// A view of the machine's files of one thread, and of those that it makes, where a host has a name of its own.
    private final class Names: Sendable {
        let folder: URL
        private static let line = "127.0.0.1 image-host\n"
        private var pipe: String { folder.appendingPathComponent("pipe").path }

        init() throws { folder = try Server.makeFolder() }

        deinit { try? FileManager.default.removeItem(at: folder) }

        /// Gives the calling thread its view, in which `image-host` is this machine.
        func enter() throws {
            let file = folder.appendingPathComponent("hosts").path
            try Self.line.write(toFile: file, atomically: true, encoding: .utf8)
            try #require(mkfifo(pipe, 0o600) == 0)
            try #require(cnt_unshare_mounts() == 0)
            try #require(mount(nil, "/", nil, UInt(MS_REC | MS_PRIVATE), nil) == 0)
            try #require(mount(file, "/etc/hosts", nil, UInt(MS_BIND), nil) == 0)
        }

        /// Lets nobody of that view learn an address any more.
        func block() { #expect(mount(pipe, "/etc/hosts", nil, UInt(MS_BIND), nil) == 0) }

        /// As ``block()``, but names are found in the end.
        func blockResolver() { #expect(mount(pipe, "/etc/resolv.conf", nil, UInt(MS_BIND), nil) == 0) }

        /// Lets those that wait go on, and those that come.
        func unblockResolver() {
            #expect(umount2("/etc/resolv.conf", Int32(MNT_DETACH)) == 0)
            unblock()
        }

        /// Tells those that wait what they have asked for.
        func unblock() {
            _ = wait {
                let end = open(pipe, O_WRONLY | O_NONBLOCK)
                // Until nobody waits any more.
                guard end >= 0 else { return true }
                // Somebody reads until it is written.
                let reader = open(pipe, O_RDONLY | O_NONBLOCK)
                defer {
                    close(end)
                    close(reader)
                }
                return write(end, Self.line, Self.line.utf8.count) < 0
            }
        }
    }

    /// Runs something on a thread that may change what files it sees.
    private func inAView(_ body: @escaping @Sendable (Names) throws -> Void) throws {
        let names = try Names()
        let failure = Reports<String>()
        let thread = Toucher {
            do {
                try names.enter()
                try body(names)
            } catch {
                failure.add("\(error)")
            }
        }
        let isOver = thread.join(seconds: 60)
        names.unblock()
        #expect(isOver)
        #expect(failure.all.isEmpty)
    }

    /// The second connection's name is never found: the first one serves.
    @Test func aNameThatIsNotFoundHoldsUpNoOtherConnection() throws {
        let (server, port) = try Server.onPort("pattern", "4M")
        defer { server.kill() }
        try inAView { names in
            let source = try NBDSource(
                "nbd://image-host:\(port)",
                configuration: NBDConfiguration(
                    connections: 2,
                    // The first connection is there, and no other was begun.
                    report: { if case .connected(0) = $0 { names.block() } }))
            let served = try Served(source, bytes: 4 << 20)
            #expect(Toucher.all(0..<64, seconds: 8) { served.isPattern($0 * Self.page) })
            #expect(source.statistics.connections == 1)
            try served.pager.stop(.poison)
        }
    }

    @Test func aSourceWhoseNameIsNotFoundIsNotOpened() throws {
        try inAView { names in
            names.block()
            let error = #expect(throws: NBDError.self) {
                try NBDSource(
                    "nbd://image-host:1", configuration: NBDConfiguration(connectTimeout: .milliseconds(200)))
            }
            #expect(error?.operation == .connect)
            #expect(error?.message.contains("address") == true)
        }
    }

    /// An attempt goes on with the look-up of the one before, which has ended between the two.
    @Test func aNameThatIsFoundLateIsUsed() throws {
        let (server, port) = try Server.onPort("pattern", "4M")
        defer { server.kill() }
        try inAView { names in
            let reports = Reports<NBDReport>()
            let source = try NBDSource(
                "nbd://image-host:\(port)",
                configuration: NBDConfiguration(
                    connections: 2, connectTimeout: .seconds(2), backOff: .seconds(1),
                    report: {
                        reports.add($0)
                        if case .connected(0) = $0 { names.blockResolver() }
                    }))
            func failures() -> Int { reports.count { if case .notConnected(1, _) = $0 { true } else { false } } }
            #expect(wait { failures() == 1 })
            names.unblockResolver()
            #expect(wait { Self.dials() == 0 })
            #expect(wait { source.statistics.connections == 2 })
            #expect(failures() == 1)
        }
    }

    /// Threads that look up a name.
    private static func dials() -> Int {
        let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
        return tasks.count {
            let name = try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8)
            return name?.hasPrefix("uffd-nbd-dial") == true
        }
    }
}
