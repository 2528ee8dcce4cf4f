import Testing

@testable import UserfaultFD

@Suite struct StatusParserTests {
    @Test func readsTheKernelsText() throws {
        let text =
            "pos:\t0\nflags:\t02004000\nmnt_id:\t15\npending:\t3\ntotal:\t5\nAPI:\taa:80000100:80000000000001ff\n"
        let status = try #require(UserfaultFD.Status(fdinfo: text))
        #expect(status.pending == 3 && status.total == 5)
        #expect(status.isNegotiated)
        #expect(status.features == .threadID)
        #expect(status.ioctls == UserfaultFD.Ioctls(rawValue: 0x8000_0000_0000_01FF))
    }

    @Test func knowsADescriptorThatIsNotNegotiated() throws {
        let status = try #require(UserfaultFD.Status(fdinfo: "pending:\t0\ntotal:\t0\nAPI:\taa:0:80000000000001ff\n"))
        #expect(!status.isNegotiated && status.features.isEmpty)
    }

    @Test(arguments: [
        "", "pos:\t0\nflags:\t02\n", "pending:\t0\ntotal:\t0\n", "pending:\tx\ntotal:\t0\nAPI:\taa:0:0\n",
        "pending:\t0\ntotal:\t0\nAPI:\tab:0:0\n", "pending:\t0\ntotal:\t0\nAPI:\taa:0\n",
        "pending:\t0\ntotal:\t0\nAPI:\taa:zz:0:0\n", "pending:\t0\ntotal:\t0\nAPI:\taa:10000000000000000:0\n",
        "pending:\t99999999999999999999\ntotal:\t0\nAPI:\taa:0:0\n", "\u{FFFD}\n\n:::",
        "API:\t:::\npending:\t\ntotal:\n",
    ])
    func refusesOtherTexts(text: String) {
        #expect(UserfaultFD.Status(fdinfo: text) == nil)
    }

    @Test func arbitraryTextNeverTraps() {
        var random = SplitMix(seed: 7)
        let pieces = ["pending:", "total:", "API:", "\t", "\n", "aa", ":", "80000000", "-1", "\u{301}", "9", " ", "\r"]
        for _ in 0..<5_000 {
            var text = ""
            for _ in 0..<(random.next() % 24) { text += pieces[Int(random.next() % UInt64(pieces.count))] }
            _ = UserfaultFD.Status(fdinfo: text)
        }
    }
}
