import Glibc
import UserfaultFD
import UserfaultPager

let file = open(CommandLine.arguments[1], O_RDONLY)
guard file >= 0 else { fatalError("cannot open the file") }
let pager = try Pager(UserfaultFD(), source: FileSource(adopting: file))
let memory = try Mapping(anonymous: 1 << 30, options: .noReserve)  // 1 GiB of addresses, no memory yet
try pager.add(memory.range)
try pager.start()

print("byte 0 is", memory.withBytes { $0.unsafeLoad(as: UInt8.self) })  // waits until the page is loaded
try pager.stop(.poison)
print(pager.statistics.faults, "fault served")
