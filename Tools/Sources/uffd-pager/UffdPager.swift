import ArgumentParser

@main
struct UffdPager: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "uffd-pager",
        abstract: "Serves the memory of virtual machines and restored processes, page by page.",
        discussion: """
            Exit codes: 0 all clients were served to their end; 1 a client could not be served; 64 wrong usage; 66 a file \
            cannot be read; 69 this host cannot do what was asked; 71 the kernel refused; 73 a socket or file cannot be \
            made; 74 output cannot be written.
            """,
        subcommands: [ProbeCommand.self]
    )

    static func main() async {
        Standard.prepare()
        await main(nil)
    }
}
