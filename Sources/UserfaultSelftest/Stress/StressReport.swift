import Glibc
import SystemPackage
import UserfaultFD

/// One stress run as the kernel's own prints it: a TAP result with the progress as comments.
package struct StressReport {
    private let options: StressOptions
    private let changesSystem: Bool
    private let output: ReportOutput

    /// - Parameters:
    ///   - changesSystem: Whether the pool of huge pages may be made larger for the run.
    ///   - output: Where the report goes.
    package init(_ options: StressOptions, changesSystem: Bool, output: ReportOutput) {
        self.options = options
        self.changesSystem = changesSystem
        self.output = output
    }

    /// Runs and prints.
    ///
    /// Answers the exit code: 0, 1, or 4 where it cannot be had here.
    package func run() -> Int32 {
        let name = "uffd-stress \(options.memory.rawValue)"
        output.line("TAP version 13\n1..1")
        do {
            // Nothing is caught: a signal ends the run, and the guardian puts back what it changed.
            var changes = SystemChanges(areAllowed: changesSystem, isRoot: geteuid() == 0) { [output] in
                output.line("# \($0)")
            }
            defer { for trouble in changes.finish() { output.line("# not put back: \(trouble)") } }
            try expectRoom()
            try provideHugePages(&changes)
            try StressRun(options) { [output] in output.line("# \($0)") }.run()
            output.line("ok 1 \(name)\n# Totals: pass:1 fail:0 xfail:0 xpass:0 skip:0 error:0")
            return 0
        } catch let skip as StressSkip {
            output.line("ok 1 # SKIP \(name): \(skip.reason)\n# Totals: pass:0 fail:0 xfail:0 xpass:0 skip:1 error:0")
            return 4
        } catch let skip as CaseSkip {
            output.line("ok 1 # SKIP \(name): \(skip.reason)\n# Totals: pass:0 fail:0 xfail:0 xpass:0 skip:1 error:0")
            return 4
        } catch {
            if let reason = (error as? UserfaultError).flatMap(Restrictions.filteredCall) {
                output.line("ok 1 # SKIP \(name): \(reason)\n# Totals: pass:0 fail:0 xfail:0 xpass:0 skip:1 error:0")
                return 4
            }
            output.line("not ok 1 \(name)")
            if let failure = error as? CaseFailure {
                output.line(
                    "# expected: \(failure.expected)\n# seen: \(failure.seen)\n# at: \(failure.file):\(failure.line)")
            } else {
                output.line("# \(error)")
            }
            output.line("# Totals: pass:0 fail:1 xfail:0 xpass:0 skip:0 error:0")
            return 1
        }
    }

    /// Two areas that change places, and what the threads and the kernel take for them.
    private func expectRoom() throws {
        let needed = 3 * options.mebibytes
        let available = (ProcFile.number("MemAvailable", in: "/proc/meminfo") ?? .max) >> 10
        guard options.memory.isHugetlb || needed <= available else {
            throw StressSkip(reason: "needs \(needed) MiB of memory, \(available) are available")
        }
        guard options.memory.isTmpfs, let room = TmpfsRoom.best?.kibibytes else { return }
        guard needed <= room >> 10 else {
            throw StressSkip(reason: "needs \(needed) MiB free on a tmpfs, \(room >> 10) are: enlarge it")
        }
    }

    /// Two areas that change places, a file under minor faults with its private copies, and a page for each thread.
    private func provideHugePages(_ changes: inout SystemChanges) throws {
        guard options.memory.isHugetlb else { return }
        let size = PageSize.defaultHuge ?? .twoMiB
        let needed = 4 * size.pages(in: options.mebibytes << 20) + options.threadCount
        let refusal = changes.provide(.hugePages(free: needed), unless: HugePagePool.free >= needed) {
            "not enough huge pages: \(needed) are needed"
        }
        if let refusal { throw StressSkip(reason: refusal.reason) }
    }
}
