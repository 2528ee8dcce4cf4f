import Foundation
import Testing

/// The built `uffd-selftest`, and other programs that read what it writes.
enum SelftestProgram {
    struct Answer {
        let exitCode: Int32
        let output: String
        let errors: String
    }

    /// The program lies beside the one that runs the tests.
    static let path: String = {
        let tests = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        let candidates =
            [tests.deletingLastPathComponent().path]
            + CommandLine.arguments.map {
                URL(fileURLWithPath: $0).deletingLastPathComponent().path
            }
        return candidates.map { $0 + "/uffd-selftest" }.first(where: FileManager.default.isExecutableFile)
            ?? "uffd-selftest"
    }()

    static func run(_ arguments: String...) throws -> Answer {
        try start(path, arguments)
    }

    /// Runs a program to its end.
    static func start(_ program: String, _ arguments: [String], input: String = "") throws -> Answer {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [program] + arguments
        let directory = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        // Files cannot fill up as pipes do, and a process that was left behind does not keep a reader waiting.
        let files = ["input", "output", "errors"].map(directory.appendingPathComponent)
        for file in files { try Data(input.utf8).write(to: file) }
        for file in files[1...] { try Data().write(to: file) }
        process.standardInput = try FileHandle(forReadingFrom: files[0])
        process.standardOutput = try FileHandle(forWritingTo: files[1])
        process.standardError = try FileHandle(forWritingTo: files[2])
        try process.run()
        process.waitUntilExit()
        return Answer(
            exitCode: process.terminationStatus,
            output: String(decoding: try Data(contentsOf: files[1]), as: UTF8.self),
            errors: String(decoding: try Data(contentsOf: files[2]), as: UTF8.self))
    }

    /// Runs a Python script on `input` and answers what it prints: a parser that is not ours.
    static func python(_ script: String, input: String) throws -> String {
        let answer = try start("python3", ["-c", script], input: input)
        try #require(answer.exitCode == 0, "\(answer.errors)")
        return answer.output.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}
