import CSelftestSupport
import Glibc
import SystemPackage
import UserfaultFD

extension Area {
    /// Has the kernel find out that the hardware has lost a page of the view.
    func breakPage(_ index: Int, _ context: CaseContext) throws {
        try BrokenPages.breakMemory(page(index), context)
    }

    /// Fails unless a page of the view raises the signal of broken memory, for loads and stores, and makes no message.
    func expectBroken(
        _ index: Int, _ uffd: borrowing UserfaultFD, _ when: String, file: String = #fileID, line: Int = #line
    ) throws {
        let last = address(index) + UInt(pageSize.bytes - 1)
        // A store to a page that is sound after all, and protected, would wait for ever.
        for touch in [{ Touch.load(self.address(index)) }, { Touch.store(last, 1) }] {
            let outcome = touch()
            guard case .signal(let fault) = outcome else {
                throw CaseFailure(
                    expected: "SIGBUS of a broken page \(when)", seen: "\(outcome)", file: file, line: line)
            }
            let seen = [fault.signal, fault.code, fault.address_lsb]
            try expectEqual(
                seen, [SIGBUS, BrokenPages.signalCode, Int32(pageSize.log2)],
                "signal, si_code and si_addr_lsb of a broken page \(when)", file: file, line: line)
        }
        try uffd.expectNoMessage("a broken page is no missing page", file: file, line: line)
    }
}

extension BrokenPages {
    /// `BUS_MCEERR_AR`: the access needs what the hardware has lost.
    static let signalCode: Int32 = 4

    /// Has the kernel find out that the hardware has lost some memory, all of which is present.
    static func breakMemory(_ range: AddressRange, _ context: CaseContext) throws {
        try note(range)
        let answer = css_break_memory(range.start, range.count)
        // Newer kernels take the advice for an access, and raise its signal at once.
        if answer == SIGBUS { return context.record("MADV_HWPOISON raises SIGBUS") }
        try expectEqual(answer, 0, "answer of MADV_HWPOISON")
    }
}
