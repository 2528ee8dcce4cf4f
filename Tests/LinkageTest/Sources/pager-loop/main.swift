import UserfaultFD
import UserfaultPager

let memory = try Mapping(anonymous: PageSize.base.bytes)
let pager = try Pager(UserfaultFD(), source: ZeroSource())
try pager.add(memory.range)
try pager.start()
print("read \(memory.withBytes { $0.unsafeLoad(as: UInt8.self) })")
try pager.stop(.poison)
