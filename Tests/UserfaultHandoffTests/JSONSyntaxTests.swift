import Testing

@_spi(Programs) import UserfaultHandoff

@Suite("A complaint about JSON")
struct JSONSyntaxTests {
    struct Key: CodingKey, ExpressibleByStringLiteral, ExpressibleByIntegerLiteral {
        let stringValue: String
        let intValue: Int?

        init(stringValue: String) { (self.stringValue, intValue) = (stringValue, nil) }
        init(intValue: Int) { (stringValue, self.intValue) = ("Index \(intValue)", intValue) }
        init(stringLiteral value: String) { self.init(stringValue: value) }
        init(integerLiteral value: Int) { self.init(intValue: value) }
    }

    private static let windows = "{\r\n  \"a\": 1,\r\n  \"b\": [\r\n    {},\r\n    {\"c\": 2}\r\n  ]\r\n}\r\n"

    @Test(
        "names the line of a value",
        arguments: [
            (#"{"a": 1}"#, ["a"], 1), (windows, ["a"], 2), (windows, ["b"], 3), (windows, ["b", 1, "c"], 5),
            // The document itself, and an element: where they begin. A member: where its name is.
            ("\n\n {}", [], 3), ("[\n\n1,\n2]", [0], 3), ("[\n\n1,\n2]", [1], 4), ("{\"a\":\n\n1}", ["a"], 1),
            // Bytes of many that are one character, and an escape that is one or a line break.
            ("{\"дом\": \"🏠\",\n\"é\": 1}", ["é"], 2), ("{\"a\": \"\\n\",\n\"\\u00e9\": 1}", ["é"], 2),
            ("{\"a\": {},\n\"a\": {\"b\": 1}}", ["a"], 1),
        ] as [(String, [Key], Int)])
    func lines(text: String, path: [Key], line: Int) {
        #expect(JSONSyntax.line(of: path, in: Array(text.utf8)) == line)
    }

    @Test(
        "names no line of a value that is not there",
        arguments: [
            (#"{"a": 1}"#, ["b"]), (#"{"a": 1}"#, ["a", "b"]), (#"{"a": 1}"#, [0]), ("[1, 2]", [2]), ("[1, 2]", ["a"]),
            (#"{"a""#, ["a"]), ("", ["a"]),
        ] as [(String, [Key])])
    func noLines(text: String, path: [Key]) {
        #expect(JSONSyntax.line(of: path, in: Array(text.utf8)) == nil)
    }

    @Test(
        "names a line, and a column in bytes",
        arguments: [
            (#"{"a", 1}"#, "line 1, column 5: "), ("{\r\n  \"a\" 1\r\n}", "line 2, column 7: "),
            ("{\"дом\": \"🏠\",\n \"é\": x}", "line 2, column 8: "), ("{\"дом\": x}", "line 1, column 12: "),
            // At the end of the text, with and without a last line break.
            ("", "line 1, column 1: "), (#"{"a": 1"#, "line 1, column 8: "), ("{\n\"a\": 1,\n", "line 3, column 1: "),
            ("{}\n}", "line 2, column 1: "), ("[1,\r\n", "line 2, column 1: "),
        ])
    func columns(text: String, place: String) throws {
        let complaint = try #require(JSONSyntax.complaint(about: Array(text.utf8)))
        #expect(complaint.hasPrefix(place), "\(complaint)")
    }

    @Test("is not made about JSON", arguments: [#"{"a": [1, "дом"]}"#, windows, " null\n"])
    func whole(text: String) {
        #expect(JSONSyntax.complaint(about: Array(text.utf8)) == nil)
    }
}
