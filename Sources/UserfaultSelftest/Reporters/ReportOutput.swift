import Glibc
import Synchronization
package import SystemPackage

/// Where a report goes.
///
/// Each line is written at once. After the first that cannot be, nothing more is written, and ``failure`` tells why.
package final class ReportOutput: Sendable {
    private let descriptor: FileDescriptor
    private let firstFailure = Mutex<Errno?>(nil)
    /// Whether what was written can be written again, because it is a file that nobody else writes.
    package let isRewritable: Bool

    /// - Parameter isOwnFile: Whether this program has opened it, and truncated it.
    package init(_ descriptor: FileDescriptor, isOwnFile: Bool = false) {
        self.descriptor = descriptor
        var status = stat()
        isRewritable = isOwnFile && fstat(descriptor.rawValue, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }

    package func write(_ text: String) {
        attempt { _ = try descriptor.writeAll(text.utf8) }
    }

    /// Writes text of a document that `closing` makes whole.
    ///
    /// A file is whole after each such write, even if the program or the host dies then: the next one takes the place of
    /// the closing. Elsewhere the closing is not written.
    func write(_ text: String, closing: String) {
        guard isRewritable else { return write(text) }
        attempt {
            _ = try descriptor.writeAll((text + closing).utf8)
            try descriptor.seek(offset: Int64(-closing.utf8.count), from: .current)
        }
    }

    /// Writes text over what is at the start of a file that can be rewritten.
    func rewriteStart(_ text: String) {
        attempt { _ = try descriptor.writeAll(toAbsoluteOffset: 0, text.utf8) }
    }

    func attempt(_ body: () throws -> Void) {
        firstFailure.withLock { failure in
            guard failure == nil else { return }
            do {
                try body()
            } catch {
                failure = error as? Errno ?? .ioError
            }
        }
    }

    package func line(_ text: String) {
        write(text + "\n")
    }

    /// Why the report is not complete; nil while it is.
    package var failure: Errno? { firstFailure.withLock { $0 } }

    /// Ends the report: what a file system has put off writing may fail only now.
    package func finish() {
        // The last closing may be shorter than the one before.
        if isRewritable { attempt { try descriptor.resize(to: descriptor.seek(offset: 0, from: .current)) } }
        firstFailure.withLock { failure in
            // Terminals, pipes and the like have nothing to put off, and answer with other errors.
            guard failure == nil, fsync(descriptor.rawValue) != 0 else { return }
            let error = Errno(rawValue: errno)
            if [.ioError, .noSpace, .diskQuotaExceeded].contains(error) { failure = error }
        }
    }

    /// How wide a terminal is that shows the output; nil when it is no terminal.
    package var terminalWidth: Int? { Terminal.width(of: descriptor) }
}
