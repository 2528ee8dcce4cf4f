import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultFD

/// Cases that check the runner itself: each ends in another way.
///
/// No list shows them; `--filter 'selfcheck-*'` runs them.
enum SelfCheckCases: CaseTheme {
    static let prefix = "selfcheck-"

    static let cases: [SelftestCase] = endings + supportCases + hostCases

    private static let endings = [
        SelftestCase("selfcheck-pass", on: [.anon, .shmem], "a case that returns passes") { context in
            context.record("seen on \(context.memory.rawValue)")
        },
        SelftestCase("selfcheck-fail", "a case that expects too much fails") { context in
            context.onFailure { "evidence <&> \u{1b}[31m of the failure" }
            try expectEqual(1 + 1, 3, "the sum")
        },
        SelftestCase("selfcheck-throw", "a case that throws something else fails") { _ in
            throw Overturned()
        },
        SelftestCase("selfcheck-skip", "a case that skips itself is a skip") { context in
            try context.skip("nothing to see")
        },
        SelftestCase("selfcheck-chance", "a case that chance keeps from a verdict is tried again") { context in
            guard let path = getenv("UFFD_SELFTEST_TRIES") else { try context.skip(thisTime: "no luck") }
            // The file grows by a byte with each try; the third is lucky.
            let file = try FileDescriptor.open(
                FilePath(platformString: path), .writeOnly, options: [.append, .closeOnExec])
            try file.closeAfter { _ = try file.writeAll([0]) }
            var status = stat()
            try expectEqual(stat(path, &status), 0, "the answer of stat")
            guard status.st_size >= 3 else { try context.skip(thisTime: "no luck at try \(status.st_size)") }
        },
        SelftestCase(
            "selfcheck-future", "what only a kernel has, and this one not, is the lack of the kernel",
            requires: [.file("/proc/nowhere")]
        ) { _ in },
        SelftestCase(
            "selfcheck-require", "a case whose requirement is missing is a skip", requires: [.file("/nowhere")]
        ) { _ in },
        SelftestCase("selfcheck-hang", "a case that does not come back is killed", limit: .milliseconds(300)) {
            context in
            context.record("about to wait for ever")
            while true { pause() }
        },
        SelftestCase(
            "selfcheck-fault", "a case whose thread waits for a fault is killed", limit: .milliseconds(300)
        ) { _ in
            let page = try Mapping(anonymous: PageSize.base.bytes)
            let uffd = try UserfaultFD()
            try uffd.register(page.range, modes: .missing)
            var byte: UInt8 = 0
            css_load8(page.range.start, &byte, nil)
        },
        SelftestCase("selfcheck-crash", "a case that dies of a signal fails") { _ in
            kill(getpid(), SIGSEGV)
        },
        SelftestCase("selfcheck-exit", "a case that ends the process without a word fails") { _ in
            exit(3)
        },
        SelftestCase("selfcheck-flood", "what a case prints is kept up to a limit") { _ in
            let line = [UInt8](repeating: UInt8(ascii: "x"), count: 4000)
            for _ in 0..<1024 { _ = write(STDOUT_FILENO, line, line.count) }
            throw Overturned()
        },
        SelftestCase("selfcheck-stray", "a process that a case leaves behind is killed") { context in
            context.record("stray \(try Stray.start())")
        },
    ]

    private struct Overturned: Error {}
}

/// A process that outlives its parent, out of reach of the parent's process group.
private enum Stray {
    static func start() throws -> Int32 {
        let arguments = [strdup("sleep"), strdup("1000"), nil]
        defer { arguments.forEach { free($0) } }
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        posix_spawnattr_setpgroup(&attributes, 0)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETPGROUP))
        var pid: Int32 = 0
        guard posix_spawnp(&pid, "sleep", nil, &attributes, arguments, environ) == 0 else {
            throw CaseSkip("there is no sleep program")
        }
        return pid
    }
}
