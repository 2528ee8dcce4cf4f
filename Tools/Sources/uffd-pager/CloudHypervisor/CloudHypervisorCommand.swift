import ArgumentParser
import Logging
import UserfaultHandoff

struct CloudHypervisorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cloud-hypervisor",
        abstract: "Save and restore machines of Cloud Hypervisor, in place of its offload daemon.",
        subcommands: [Save.self, Restore.self]
    )
}

extension CloudHypervisorCommand {
    struct Save: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "snapshot",
            abstract: "Save a machine that Cloud Hypervisor sends to a socket by a local migration.",
            discussion: """
                Start this first, then "ch-remote send-migration destination_url=unix:SOCKET,local=on". It saves one machine \
                and ends. Cloud Hypervisor is answered when everything is on the disk.

                Exit codes: 0 the machine is saved; 1 it is not, and stays where it was; 64 wrong usage; 73 the socket or the \
                folder cannot be used.
                """
        )

        @Option(help: ArgumentHelp("Where Cloud Hypervisor connects.", valueName: "path"), completion: .file())
        var socket: String

        @Option(help: ArgumentHelp("An empty folder.", valueName: "folder"), completion: .directory)
        var outputDir: String

        @OptionGroup var access: AccessOptions
        @OptionGroup var log: LogOptions

        func run() throws {
            let peers = try access.peers
            let snapshot: CloudHypervisorSnapshot
            do throws(CloudHypervisorError) {
                snapshot = try CloudHypervisorSnapshot(into: outputDir)
            } catch {
                throw Failure(.uncreatable, "\(error)")
            }
            let listener = try Self.listen(at: socket, mode: access.socketMode?.value)
            log.logger.info("listening", metadata: ["socket": "\(socket)"])
            let outcome = Result { () throws(CloudHypervisorError) in
                try Self.receive(snapshot, at: listener, from: peers, log.logger)
            }
            listener.removePath()
            switch outcome {
            case .success(let summary):
                log.logger.info("saved", metadata: ["slots": "\(summary.slots)", "bytes": "\(summary.memoryBytes)"])
            case .failure(let error): throw Failure(.failure, "\(error)")
            }
        }

        private static func listen(at path: String, mode: UInt32?) throws -> HandoffListener {
            try SocketPath.check(path, .uncreatable)
            do throws(HandoffError) {
                return try HandoffListener(path: path, mode: mode)
            } catch {
                throw Failure(.uncreatable, SocketPath.complaint(path, error))
            }
        }

        private static func receive(
            _ snapshot: CloudHypervisorSnapshot, at listener: borrowing HandoffListener, from peers: PeerPolicy,
            _ logger: Logger
        ) throws(CloudHypervisorError) -> CloudHypervisorSnapshot.Summary {
            while true {
                let connection: HandoffConnection?
                do throws(HandoffError) { connection = try listener.accept() } catch { throw .handoff(error) }
                guard let connection else { continue }
                let peer = connection.peer
                if peers.allows(peer) { return try snapshot.receive(over: connection) }
                logger.warning("a connection was refused", metadata: ["error": "\(HandoffError.refused(peer))"])
            }
        }
    }

    struct Restore: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Restore a machine into a Cloud Hypervisor that waits for a migration at a socket.",
            discussion: """
                Start "ch-remote receive-migration unix:SOCKET" first; with --on-demand, \
                "receive-migration receiver_url=unix:SOCKET,memory_mode=postcopy". With --on-demand this program serves pages \
                until Cloud Hypervisor has all that it needs; if it dies, Cloud Hypervisor ends the machine.

                Exit codes: 0 the machine is restored; 1 it is not, or pages were lost; 64 wrong usage; 66 the folder cannot be \
                read.
                """
        )

        @Option(help: ArgumentHelp("Where Cloud Hypervisor waits.", valueName: "path"), completion: .file())
        var socket: String

        @Option(help: ArgumentHelp("The folder of the machine.", valueName: "folder"), completion: .directory)
        var inputDir: String

        @Flag(help: "Load pages when they are touched.")
        var onDemand = false

        @Flag(help: "Let the machine run; without this it is paused.")
        var resume = false

        @OptionGroup var log: LogOptions

        func run() throws {
            let restore: CloudHypervisorRestore
            do throws(CloudHypervisorError) {
                restore = try CloudHypervisorRestore(
                    from: inputDir, options: .init(isOnDemand: onDemand, resumes: resume))
            } catch {
                if case .folder(let text) = error { throw Failure(.unreadable, text) }
                throw Failure(.failure, "\(error)")
            }
            let (path, logger) = (socket, log.logger)
            let summary: CloudHypervisorRestore.Summary
            do throws(CloudHypervisorError) {
                summary = try restore.run(connectingTo: path)
            } catch {
                throw Failure(.failure, "\(error)")
            }
            logger.info(
                "restored",
                metadata: [
                    "slots": "\(summary.slots)", "bytes": "\(summary.memoryBytes)", "faults": "\(summary.faults)",
                ])
        }
    }
}
