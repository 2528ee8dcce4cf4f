import Foundation
import SystemPackage
import Testing

@testable import UserfaultSelftest

/// What other programs do to the file of a report at the wrong moment.
final class ReportFileTests {
    private let directory: URL
    private var path: String { directory.appendingPathComponent("report").path }

    init() throws {
        directory = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID())")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        try write("old")
    }

    deinit { try? FileManager.default.removeItem(at: directory) }

    private func write(_ text: String) throws { try Data(text.utf8).write(to: URL(fileURLWithPath: path)) }

    private func text(of path: String) -> String? { try? String(contentsOfFile: path, encoding: .utf8) }

    @Test func aFileThatIsReplacedBeforeItIsLockedIsOpenedAgain() throws {
        var opened = 0
        let (file, _) = try ReportFile.locked(path) { path in
            opened += 1
            let file = try FileDescriptor.open(FilePath(path), .readWrite)
            if opened == 1 {
                // `write` has the same name for another file.
                unlink(path)
                try write("another report")
            }
            return file
        }
        #expect(opened == 2)
        let links = try file.closeAfter { try ReportFile.status(of: file).st_nlink }
        #expect(links == 1)
    }

    @Test func aFileThatIsReplacedAllTheTimeIsBusy() throws {
        #expect(throws: ReportFile.Busy.self) {
            try ReportFile.locked(path) { path in
                defer { unlink(path) }
                return try FileDescriptor.open(
                    FilePath(path), .readWrite, options: .create, permissions: .ownerReadWrite)
            }
        }
    }

    @Test func aReportIsNotCopiedToAFileThatIsGone() throws {
        let report = try ReportFile(path)
        report.output.write("new")
        for name in [path, path + ".partial"] { unlink(name) }
        report.finish()
        #expect(report.output.failure == .noSuchFileOrDirectory)
        #expect(report.kept == nil)
    }

    @Test func aReportTakesThePlaceOfTheOneBefore() throws {
        let report = try ReportFile(path)
        report.output.write("new")
        #expect(text(of: path) == "old")
        report.finish()
        #expect(report.output.failure == nil && text(of: path) == "new")
    }
}
