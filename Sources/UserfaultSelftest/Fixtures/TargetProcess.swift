package import UserfaultFD

/// A child whose two pages of memory are guarded by a userfaultfd of its own, which this process has too.
package final class TargetProcess {
    package let uffd: UserfaultFD
    package let child: Child
    package let memory: AddressRange

    package convenience init(kernelFaults: Bool = false, then steps: [Child.Step]) throws {
        try self.init(kernelFaults: kernelFaults) { _ in steps }
    }

    package init(
        features: UserfaultFD.Features = [], kernelFaults: Bool = false, then steps: (AddressRange) -> [Child.Step]
    ) throws {
        memory = try Mapping(anonymous: 2 * PageSize.base.bytes).release()
        child = try Child(
            [.guardMemory(memory, features: features, kernelFaults: kernelFaults), .pause] + steps(memory),
            sharesDescriptors: true)
        try child.waitPaused()
        let answer = child.result(0) ?? -1
        try expect(answer >= 0, "the child has a userfaultfd", seen: "errno \(-answer)")
        uffd = try UserfaultFD(adopting: Int32(answer))
    }

    package func page(_ index: Int) -> AddressRange {
        memory.part(at: index * PageSize.base.bytes, count: PageSize.base.bytes)
    }
}
