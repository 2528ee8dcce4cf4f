import Testing
import UserfaultFD

@testable import UserfaultHandoff

@Suite("Firecracker's message")
struct FirecrackerMessageTests {
    private static func read(_ text: String, limits: HandoffLimits = HandoffLimits()) throws -> [HandedRegion]? {
        var message = FirecrackerMessage(limits: limits)
        return try message.consume(text.utf8)
    }

    private static let base = PageSize.base.bytes
    private static let start = #""base_host_virt_addr":140737488355328,"size":8192,"offset":4096"#

    @Test(
        "tells the page size in every version's way",
        arguments: [
            ("", base), (#","page_size":4096,"page_size_kib":4096"#, 4096), (#","page_size_kib":4096"#, 4096),
            (#","page_size":4096"#, 4096), (#","page_size":4096,"page_size_kib":4"#, 4096),
        ])
    func pageSizes(members: String, bytes: Int) throws {
        let regions = try #require(try Self.read("[{\(Self.start)\(members)}]"))
        #expect(
            regions == [
                try HandedRegion(address: 140_737_488_355_328, byteCount: 8192, offset: 4096, pageBytes: UInt64(bytes))
            ])
    }

    @Test("has huge pages")
    func hugePages() throws {
        let text = #"[{"page_size":2097152,"offset":0,"size":4194304,"base_host_virt_addr":1073741824}]"#
        #expect(try Self.read(text)?.first?.pageSize == .twoMiB)
    }

    @Test("may have members that nobody knows, in any order, of any kind, with any white space")
    func unknownMembers() throws {
        let others = #""gpa":{"a":[1,-2.5e+3,"]}\"\\\u00e9\ud83d\ude00",true,false,null,[],{}]} , "x":"\u005d""#
        let text = " \n[ {\(others), \(Self.start)\t, \"page_size\" : 4096 } ] \n"
        #expect(try Self.read(text)?.count == 1)
        #expect(try Self.read(#"[{"\u0073ize":4096,"offset":0,"base_host_virt_addr":4096}]"#)?.count == 1)
    }

    @Test("is refused if regions have the same bytes of the source")
    func overlapInSource() throws {
        func read(_ offset: Int) throws -> [HandedRegion]? {
            try Self.read("[{\(Self.start)},{\"base_host_virt_addr\":4096,\"size\":8192,\"offset\":\(offset)}]")
        }
        #expect(try read(12288)?.count == 2)
        for offset in [0, 4096, 8192] { #expect(throws: HandoffError.self) { try read(offset) } }
    }

    @Test("may come in pieces of any size")
    func pieces() throws {
        let text =
            "["
            + (0..<100).map { "{\"base_host_virt_addr\":\(4096 * (1 + 2 * $0)),\"size\":4096,\"offset\":\(4096 * $0)}" }
            .joined(separator: ", ") + "]"
        #expect(text.utf8.count > 4096)
        for size in [1, 7, 1024, text.utf8.count] {
            var message = FirecrackerMessage()
            var found: [HandedRegion]?
            var rest = Array(text.utf8)[...]
            while !rest.isEmpty {
                #expect(found == nil)
                found = try message.consume(rest.prefix(size))
                rest = rest.dropFirst(size)
            }
            #expect(found?.count == 100)
        }
    }

    @Test(
        "is refused if it is anything else",
        arguments: [
            "{}", "x", "[]", "[1]", "[{}]", "[{\(start)}", "[{\(start)}]]", "[{\(start)}]x", "[{\(start)},]",
            "[{\(start),}]",
            "[{\(start)}}", "[{\(start),\"size\":4096}]", "[{\(start),\"page_size\":0}]",
            "[{\(start),\"page_size\":-1}]",
            "[{\(start),\"page_size\":\"4096\"}]", "[{\(start),\"page_size\":4096.0}]",
            "[{\(start),\"page_size\":04096}]",
            "[{\(start),\"page_size\":18446744073709551616}]", "[{\(start),\"page_size\":3}]", "[{\(start),\"x\":tru}]",
            "[{\(start),\"x\":\"\\x\"}]", "[{\(start),\"x\":\"\\ud800\"}]", "[{\(start),\"x\":\"\u{1}\"}]",
            "[{\(start)},{\(start)}]", "[{\(start),\"x\":1.}]", "[{\(start),\"x\":1e}]",
            "[{\(start),\"x\":\"\\u00g0\"}]",
            #"[{"size":4096,"offset":0}]"#, "[{\(start) \"x\":1}]", "[{\(start),x:1}]",
            "[{\(start),\"x\":" + String(repeating: "[", count: 100) + String(repeating: "]", count: 100) + "}]",
        ])
    func refused(text: String) {
        // What cannot be told from the beginning of a longer message is no error yet.
        #expect(throws: HandoffError.self) { if try Self.read(text) == nil { throw HandoffError.closedEarly } }
    }

    @Test("is refused if a string is not UTF-8")
    func notUnicode() {
        var message = FirecrackerMessage()
        let bytes = Array("[{\(Self.start),\"x\":\"".utf8) + [0xff] + Array("\"}]".utf8)
        #expect(throws: HandoffError.self) { try message.consume(bytes) }
    }

    @Test("is refused above the limits")
    func limits() {
        let two =
            #"[{"base_host_virt_addr":4096,"size":4096,"offset":0},{"base_host_virt_addr":8192,"size":4096,"offset":0}]"#
        #expect(throws: HandoffError.tooManyRegions(limit: 1)) { try Self.read(two, limits: HandoffLimits(regions: 1)) }
        #expect(throws: HandoffError.tooLong(limit: 50)) { try Self.read(two, limits: HandoffLimits(messageBytes: 50)) }
    }
}
