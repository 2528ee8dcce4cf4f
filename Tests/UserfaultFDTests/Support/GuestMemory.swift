import CUserfaultFD
import Testing

@testable import UserfaultFD

/// The memory of a virtual machine: a guest_memfd that can be mapped.
enum GuestMemory {
    static let isThere = (try? descriptor(count: PageSize.base.bytes).close()) != nil

    static func descriptor(count: Int) throws(UserfaultError) -> OwnedDescriptor {
        OwnedDescriptor(adopting: try answer(to: .createMemfd) { cuffd_guest_memfd(UInt64(count)) })
    }
}

extension Trait where Self == ConditionTrait {
    static var requiresGuestMemory: Self {
        .enabled(if: GuestMemory.isThere, "the kernel lacks guest_memfd that can be mapped, or access to /dev/kvm")
    }
}
