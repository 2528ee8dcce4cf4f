import Glibc
import SystemPackage
import Testing

@testable import UserfaultSelftest

/// A skip says that the kernel has something not, or that a filter refuses it; all else is a failure.
struct KernelLackTests {
    @Test(
        arguments: [
            (0, KernelRelease(99, 0), nil), (-EINVAL, KernelRelease(99, 0), .kernel), (-EINVAL, nil, .kernel),
            (-EPERM, KernelRelease(99, 0), .host), (-ENOSYS, KernelRelease(99, 0), .host),
        ] as [(Int32, KernelRelease?, SkipCause?)])
    func theCauseIsTold(answer: Int32, since: KernelRelease?, cause: SkipCause?) throws {
        let lack = KernelLack(call: "madvise", error: .invalidArgument, since: since, reason: "it has not")
        do {
            try lack.check(answer)
            #expect(cause == nil)
        } catch let skip as CaseSkip {
            #expect(skip.cause == cause)
        }
    }

    @Test func anotherErrorIsAFailure() {
        for (answer, since) in [(-EFAULT, KernelRelease(99, 0)), (-EINVAL, KernelRelease(2, 6))] {
            let lack = KernelLack(call: "madvise", error: .invalidArgument, since: since, reason: "it has not")
            #expect(throws: CaseFailure.self) { try lack.check(answer) }
        }
        let missing = KernelLack(call: "mseal", error: .noFunction, since: KernelRelease(2, 6), reason: "it has not")
        #expect { try missing.check(-ENOSYS) } throws: { ($0 as? CaseSkip)?.cause == .host }
    }

    @Test func releasesAreCompared() {
        #expect(KernelRelease("6.1.0-49-cloud-amd64") == KernelRelease(6, 1))
        #expect(KernelRelease("7.3-rc7") == KernelRelease(7, 3))
        #expect(KernelRelease("") == KernelRelease(0, 0))
        #expect(KernelRelease(6, 9) < KernelRelease(6, 10) && KernelRelease(6, 10) < KernelRelease(7, 0))
    }
}
