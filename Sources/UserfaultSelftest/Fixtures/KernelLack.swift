import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultFD

/// What comes of a call that not every kernel has, or that some kernels do not have for some memory.
///
/// Only the error that such a kernel answers says so. Anything else, and that error of a kernel that always has the call,
/// is a mistake of the kernel, or the work of a filter.
struct KernelLack {
    /// The name of the system call.
    let call: String
    /// What a kernel answers that does not have it.
    let error: Errno
    /// The first release that always has it; nil if the kernel's configuration decides.
    let since: KernelRelease?
    /// What a skip says.
    let reason: String

    /// mremap(2) of hugetlb memory.
    static let hugePageMoves = KernelLack(
        call: "mremap", error: .invalidArgument, since: KernelRelease(5, 16),
        reason: "the kernel does not move huge pages (Linux 5.16)")

    /// Ends the case unless an answer of the call is 0.
    func check(_ answer: Int32) throws {
        guard answer != 0 else { return }
        let error = Errno(rawValue: -answer)
        let isOfKernel = since.map { KernelRelease.running < $0 } ?? true
        // Filters that are older than a call may have another answer for it.
        let isUnknown = self.error == .noFunction && error == .notPermitted && since != nil
        if error == self.error || isUnknown, isOfKernel { throw CaseSkip(kernel: reason) }
        // The kernel answers neither to a process that may make the call.
        if error == .notPermitted || error == .noFunction { throw CaseSkip(Restrictions.filtered(call, error)) }
        throw CaseFailure(
            expected: "\(call) is done, or the kernel has none and answers \(self.error)", seen: "\(error)")
    }
}

/// The release of a kernel, as far as it says what the kernel has.
struct KernelRelease: Comparable {
    let major: Int
    let minor: Int

    init(_ major: Int, _ minor: Int) {
        self.major = major
        self.minor = minor
    }

    /// - Parameter name: As in `uname -r`. What it does not say counts as 0.
    init(_ name: String) {
        let numbers = name.split { !$0.isNumber }.prefix(2).map { Int($0) ?? 0 } + [0, 0]
        self.init(numbers[0], numbers[1])
    }

    /// That of the running kernel, as `uname -r` tells it.
    static var name: String {
        var names = utsname()
        uname(&names)
        return withUnsafeBytes(of: &names.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    static var running: KernelRelease { KernelRelease(name) }

    static func < (a: KernelRelease, b: KernelRelease) -> Bool { (a.major, a.minor) < (b.major, b.minor) }
}

extension Area {
    /// Makes a guard page of a page of the view; a skip if the kernel cannot.
    func guardPage(_ index: Int, lack: String = "this kernel cannot guard such memory") throws {
        // Linux 6.13 guards anonymous memory alone.
        let lack = KernelLack(call: "madvise", error: .invalidArgument, since: KernelRelease(6, 15), reason: lack)
        try lack.check(RawMemory.advise(page(index), .guardInstall))
    }

    /// Ends the case as a skip unless page 0 can be moved between the nodes 0 and 1.
    ///
    /// - Parameter pages: As in "huge pages".
    func checkMoves(of pages: String, _ context: CaseContext) throws {
        let answers = (0...1).map { css_move_page(address(0), $0) }
        guard !answers.contains(0), let answer = answers.last else { return }
        switch Errno(rawValue: -answer) {
        // Reclaim may have taken the page.
        case .resourceBusy, .resourceTemporarilyUnavailable, .noMemory, .noSuchFileOrDirectory:
            try context.skip(thisTime: "no page could be moved to another node")
        case .permissionDenied, .operationNotSupportedByDevice:
            try context.skip("this process may not use the memory of the nodes 0 and 1")
        default:
            // Without CONFIG_MIGRATION, or for memory that cannot migrate.
            try KernelLack(
                call: "move_pages", error: .noFunction, since: nil,
                reason: "this kernel does not move \(pages) between nodes"
            ).check(answer)
        }
    }
}
