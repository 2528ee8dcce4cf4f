/// What a case throws when the kernel does something else than it should.
package struct CaseFailure: Error {
    package let expected: String
    package let seen: String
    package let file: String
    package let line: Int
    /// The state of the process's userfaultfds when it happened: unwinding may close them.
    let descriptors: [String]

    package init(expected: String, seen: String, file: String = #fileID, line: Int = #line) {
        self.expected = expected
        self.seen = seen
        self.file = file
        self.line = line
        descriptors = UserfaultInfo.lines()
    }
}

/// What a case throws when it finds only while running that it cannot run here.
package struct CaseSkip: Error {
    package let reason: String
    let cause: SkipCause

    /// The host lacks something, or this user may not use it.
    package init(_ reason: String) {
        self.init(reason, cause: .host)
    }

    init(_ reason: String, cause: SkipCause) {
        self.reason = reason
        self.cause = cause
    }

    /// The kernel lacks something.
    package init(kernel reason: String) {
        self.init(reason, cause: .kernel)
    }

    /// Something did not happen that is left to the kernel or to other programs, and may happen at the next try.
    package init(thisTime reason: String) {
        self.init("this time \(reason)", cause: .chance)
    }
}

/// Fails the case unless `condition` holds.
///
/// `claim` says what is right: "the page is zero".
package func expect(
    _ condition: Bool,
    _ claim: @autoclosure () -> String,
    seen: @autoclosure () -> String = "it is not so",
    file: String = #fileID,
    line: Int = #line
) throws(CaseFailure) {
    guard condition else {
        throw CaseFailure(expected: claim(), seen: seen(), file: file, line: line)
    }
}

/// Fails the case unless both are equal.
///
/// `name` says what is compared: "bytes completed".
package func expectEqual<Value: Equatable>(
    _ actual: Value,
    _ right: Value,
    _ name: @autoclosure () -> String,
    file: String = #fileID,
    line: Int = #line
) throws(CaseFailure) {
    guard actual == right else {
        throw CaseFailure(
            expected: "\(name()): \(plain(right))", seen: plain(actual), file: file, line: line)
    }
}

/// A value as a reader wants it, without the word Optional.
private func plain<Value>(_ value: Value) -> String {
    let mirror = Mirror(reflecting: value)
    guard mirror.displayStyle == .optional else { return "\(value)" }
    return mirror.children.first.map { "\($0.value)" } ?? "none"
}

/// Fails the case unless `actual` is one of the lawful answers.
package func expectOne<Value: Equatable>(
    of lawful: [Value],
    _ actual: Value,
    _ name: @autoclosure () -> String,
    file: String = #fileID,
    line: Int = #line
) throws(CaseFailure) {
    guard lawful.contains(actual) else {
        let answers = lawful.map(plain).joined(separator: " or ")
        throw CaseFailure(expected: "\(name()): \(answers)", seen: plain(actual), file: file, line: line)
    }
}

/// Fails the case unless `body` throws a `Failure`, which it returns for further checks.
@discardableResult
package func expectThrows<Failure: Error, Answer>(
    _ type: Failure.Type,
    _ claim: @autoclosure () -> String,
    file: String = #fileID,
    line: Int = #line,
    _ body: () throws(Failure) -> Answer
) throws(CaseFailure) -> Failure {
    let answer: Answer
    do {
        answer = try body()
    } catch {
        return error
    }
    throw CaseFailure(expected: claim(), seen: "no error, answer \(answer)", file: file, line: line)
}
