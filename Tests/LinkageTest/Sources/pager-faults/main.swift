import Glibc
import UserfaultFD
import UserfaultPager

// Touches pages that a pager serves, and does nothing else:
// `pager-faults COUNT copy|zeropage|continue poll|adaptive inline|workers|in-thread|in-thread-ahead`.
let arguments = CommandLine.arguments
guard arguments.count == 5, let count = Int(arguments[1]) else { fatalError("wrong usage") }

/// Every page holds sevens.
struct Sevens: PageSource {
    var isSignalSafe: Bool { true }

    func load(offset: Int, into pages: inout OutputRawSpan) throws(Never) -> PageReply {
        pages.append(repeating: 7, count: PageSize.base.bytes, as: UInt8.self)
        return .data
    }
}

/// Every page is in the file already.
struct InFile: PageSource {
    var fillsFile: Bool { true }
    var isSignalSafe: Bool { true }

    func load(offset: Int, into pages: inout OutputRawSpan) throws(Never) -> PageReply {
        .inFile(count: PageSize.base.bytes)
    }
}

// As much memory whatever the count is, so that the pager's own is the same.
let bytes = 100_000 * PageSize.base.bytes
let services: [String: PagerConfiguration.Service] = [
    "inline": .inline, "workers": .workers(2), "in-thread": .inThread, "in-thread-ahead": .inThread,
]
let isInThread = arguments[4].hasPrefix("in-thread")
let configuration = PagerConfiguration(
    waiting: arguments[3] == "poll" ? .poll : .adaptive(), service: services[arguments[4]]!,
    watchdogInterval: .seconds(3600))
switch arguments[2] {
case "copy": try serve(Sevens(), Mapping(anonymous: bytes), expecting: 7)
case "zeropage": try serve(ZeroSource(), Mapping(anonymous: bytes), expecting: 0)
default:
    let file = try Memfd(count: bytes)
    try file.allocate(at: 0, count: bytes)
    try serve(InFile(), Mapping(file), expecting: 0)
}

func serve<Source: PageSource>(_ source: Source, _ memory: consuming Mapping, expecting value: UInt8) throws {
    let memory = memory
    try memory.advise(.noHugePage)
    let pager = try Pager(
        UserfaultFD(features: isInThread ? .sigbus : []), source: source, configuration: configuration)
    try pager.add(
        memory.range, options: RegionOptions(readAhead: arguments[4] == "in-thread-ahead" ? .adaptive() : .none))
    try pager.start()
    for page in 0..<count {
        precondition(UnsafePointer<UInt8>(bitPattern: memory.page(page).start)!.pointee == value)
    }
    // A snapshot takes memory for what was counted, which is not the same for no fault and for one.
    precondition(isInThread || pager.statistics.faults >= count)
    // What was not touched costs what it costs: it is not loaded, and the process ends here.
    exit(0)
}
