import UserfaultFD

let memory = try Mapping(anonymous: PageSize.base.bytes)
let userfaultfd = try UserfaultFD()
try userfaultfd.register(memory.range, modes: .missing)
try userfaultfd.zeropage(memory.range)
print("a page of", memory.withBytes { $0.unsafeLoad(as: UInt8.self) })
