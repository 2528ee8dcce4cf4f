import ArgumentParser

@main
struct UffdPager: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "uffd-pager",
        abstract: "Serves the memory of virtual machines and restored processes, page by page.",
        discussion: """
            Exit codes: 0 all clients were served to their end; 1 a client could not be served; 64 wrong usage; 66 a file \
            cannot be read; 69 this host cannot do what was asked; 70 the server died and its clients were killed; 71 the \
            kernel refused; 73 a socket or file cannot be made; 74 output cannot be written; 75 the server died, and systemd \
            is to start a successor; 77 this user may not use the control socket.
            """,
        version: "uffd-pager \(Version.text)",
        subcommands: [
            FirecrackerCommand.self, CRIULazyPagesCommand.self, CloudHypervisorCommand.self, HandoffCommand.self,
            ServeCommand.self, CtlCommand.self, ChecksumsCommand.self, ProbeCommand.self,
        ]
    )

    static func main() async {
        Standard.prepare()
        // Its own usage is told, once it is known.
        var type: any ParsableCommand.Type = Self.self
        var isParsed = false
        do {
            var command = try parseAsRoot()
            isParsed = true
            type = Swift.type(of: command)
            if let guarded = command as? any GuardedCommand {
                if !Keepers.hasGuard {
                    var guardian = try Guard(guarded.survival, passingOn: guarded.passedOn)
                    throw ExitCode(try guardian.stand())
                }
                if let survival = guarded.survival, survival.supervise, !Keepers.hasKeeper {
                    var keeper = try Keeper(survival)
                    throw ExitCode(try keeper.stand())
                }
                try Server.prepare()
            }
            if var command = command as? any AsyncParsableCommand {
                try await command.run()
            } else {
                try command.run()
            }
        } catch let failure as Failure {
            Standard.complain(failure.description)
            exit(withError: failure.code)
        } catch let error as ValidationError {
            // Of what was found out only when it ran.
            Standard.complain("\(error.message)\nSee 'uffd-pager \(type._commandName) --help' for more information.")
            exit(withError: ExitCode.validationFailure)
        } catch {
            if !isParsed, !Keepers.hasGuard, exitCode(for: error) != .success {
                if let code = HeldClients.hold(because: message(for: error)) { exit(withError: code) }
            }
            guard type.exitCode(for: error) == .success else { type.exit(withError: error) }
            // Help or the version: whether it could be written is to be told.
            let text = type.fullMessage(for: error)
            do { if !text.isEmpty { try Standard.write(text + "\n") } } catch { exit(withError: error) }
            exit(withError: ExitCode.success)
        }
    }
}
