@testable import UserfaultFD

/// A base page, in bytes.
let page = PageSize.base.bytes

/// A page full of one byte.
func pattern(_ byte: UInt8, pages: Int = 1) -> [UInt8] {
    [UInt8](repeating: byte, count: pages * page)
}

/// A memory file mapped twice: the first mapping is to be registered, the second fills the file.
struct Twice: ~Copyable {
    let memfd: Memfd
    let guarded: Mapping
    let alias: Mapping

    init(pages: Int, sharing: Mapping.Sharing = .shared) throws(UserfaultError) {
        let file = try Memfd(count: pages * page)
        let first = try Mapping(file, sharing: sharing)
        let second = try Mapping(file)
        memfd = file
        guarded = first
        alias = second
    }
}

/// A userfaultfd with memory registered for missing faults.
struct Guarded: ~Copyable {
    let uffd: UserfaultFD
    let memory: Mapping

    init(
        pages: Int, features: UserfaultFD.Features = [], modes: UserfaultFD.RegisterModes = .missing,
        faults: UserfaultFD.OpenOptions.Faults = .userMode
    ) throws(UserfaultError) {
        let mapped = try Mapping(anonymous: pages * page)
        let opened = try UserfaultFD(features: features, options: .init(faults: faults))
        try opened.register(mapped.range, modes: modes)
        uffd = opened
        memory = mapped
    }

    var range: AddressRange { memory.range }
    var start: UInt { memory.range.start }
}

/// Whether a page of anonymous memory is there, without touching it.
func isPresent(_ address: UInt) -> Bool {
    (try? AddressSpace.residency(of: AddressRange(start: address, count: page))) == [true]
}
