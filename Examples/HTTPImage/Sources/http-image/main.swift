// Restores memory from an object in an HTTP server, of which nbdkit reads the parts that are asked for:
//   nbdkit -U - curl url=http://HOST/image.raw --run 'http-image "$uri" >copy.raw'
// The last page is there before the others; then comes the rest, and all of it is written to the standard output.
import Glibc
import SystemPackage
import UserfaultFD
import UserfaultNBD
import UserfaultPager

func run(_ uri: String) throws {
    let image = try NBDSource(uri)
    let size = image.export.byteCount
    let memory = try Mapping(anonymous: size, options: .noReserve)
    // The pager hears of unmapping, and need not ask the kernel whose each page is.
    let pager = try Pager(UserfaultFD(features: .eventUnmap), source: AsynchronousSource(image))
    // A server that is gone for a moment comes back.
    let failure = FailurePolicy(retries: 12, backOff: .milliseconds(10))
    let region = try pager.add(memory.range, options: RegionOptions(failure: failure))
    try pager.start()

    let last = memory.withBytes { $0.unsafeLoad(fromByteOffset: size - 1, as: UInt8.self) }
    let early = pager.statistics.bytesFilled
    try pager.populate(region, within: .seconds(60))
    try pager.stop(.poison)
    let written = try memory.withBytes { bytes in
        try bytes.withUnsafeBytes { try FileDescriptor.standardOutput.writeAll($0) }
    }
    precondition(written == size && early < size)

    let report = """
        read the last byte, \(last), with \(early >> 10) KiB of \(size >> 10) KiB loaded
        loaded the rest: \(pager.statistics.bytesFilled >> 10) KiB\n
        """
    try FileDescriptor.standardError.writeAll(report.utf8)
}

guard CommandLine.arguments.count == 2 else {
    try FileDescriptor.standardError.writeAll("usage: http-image NBD-URI\n".utf8)
    exit(64)
}
try run(CommandLine.arguments[1])
