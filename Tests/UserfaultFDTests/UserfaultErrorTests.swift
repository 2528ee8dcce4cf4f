import SystemPackage
import Testing

@testable import UserfaultFD

@Suite struct UserfaultErrorTests {
    @Test func isSixteenBytes() {
        #expect(MemoryLayout<UserfaultError>.size == 16)
    }

    typealias Row = (UserfaultError.Operation, Errno, Int, UserfaultError.Reason)

    static let fills: [UserfaultError.Operation] = [.copy, .zeropage, .continue, .poison, .move]
    static let protections: [UserfaultError.Operation] = [.writeProtect, .rwProtect]

    @Test func fillsAreClassified() {
        for operation in Self.fills + Self.protections {
            let rows: [(Errno, Int, UserfaultError.Reason)] = [
                (.resourceTemporarilyUnavailable, 0, .mappingIsChanging),
                (.resourceTemporarilyUnavailable, 4096, .partial),
                (.fileExists, 0, .alreadyMapped), (.noSuchFileOrDirectory, 0, .noSuchRange),
                (.noSuchProcess, 0, .processGone), (.noMemory, 0, .noMemory), (.resourceBusy, 0, .busy),
                (.invalidArgument, 0, .invalidArgument), (.interrupted, 0, .interrupted),
                (.ioError, 0, .brokenMemory),
                (.badAddress, 0, operation == .continue ? .noPageInFile : .badAddress),
            ]
            for (errno, bytes, reason) in rows {
                let error = UserfaultError(operation, errno: errno, bytesCompleted: bytes)
                #expect(error.reason == reason, "\(error)")
            }
        }
    }

    @Test func otherCallsAreClassified() {
        let rows: [Row] = [
            (.read, .resourceTemporarilyUnavailable, 0, .wouldBlock),
            (.read, .tooManyOpenFiles, 0, .tooManyDescriptors),
            (.register, .notPermitted, 0, .notPermitted), (.register, .resourceBusy, 0, .busy),
            (.register, .noMemory, 0, .noMemory), (.send, .brokenPipe, 0, .peerClosed),
            (.receive, .connectionReset, 0, .peerClosed), (.send, .resourceTemporarilyUnavailable, 7, .wouldBlock),
            (.pagemapScan, .inappropriateIOCTLForDevice, 0, .unsupported), (.map, .noMemory, 0, .noMemory),
            (.status, .noSuchFileOrDirectory, 0, .other), (.writeFile, .noSpace, 0, .noMemory),
            (.setMode, .noSuchProcess, 0, .processGone), (.map, .fileExists, 0, .other),
        ]
        for (operation, errno, bytes, reason) in rows {
            #expect(UserfaultError(operation, errno: errno, bytesCompleted: bytes).reason == reason)
        }
    }

    @Test func circumstancesGoFirst() {
        let cases: [(UserfaultError.Circumstance, UserfaultError.Reason)] = [
            (.kernelLacksIt, .unsupported), (.notNegotiated, .notNegotiated), (.alreadyNegotiated, .alreadyNegotiated),
            (.peerClosed, .peerClosed), (.noDescriptor, .noDescriptor),
            (.noSourcePage, .noSourcePage), (.poolMayBeEmpty, .alreadyMappedOrPoolEmpty),
            (.blockingMode, .blockingMode), (.notMemoryFile, .notMemoryFile),
        ]
        for (circumstance, reason) in cases {
            let error = UserfaultError(.copy, errno: .invalidArgument, circumstance: circumstance)
            #expect(error.reason == reason)
            #expect(error.errno == .invalidArgument)
        }
    }

    @Test func openingKeepsBothAnswers() {
        let rows: [(call: Errno?, device: Errno?, errno: Errno, reason: UserfaultError.Reason)] = [
            (.notPermitted, .permissionDenied, .notPermitted, .notPermitted),
            (.notPermitted, .noSuchFileOrDirectory, .notPermitted, .notPermitted),
            (.noFunction, .permissionDenied, .noFunction, .notPermitted),
            (.noFunction, .noSuchFileOrDirectory, .noFunction, .unsupported),
            (nil, .noSuchFileOrDirectory, .noSuchFileOrDirectory, .unsupported),
            (nil, .noSuchAddressOrDevice, .noSuchAddressOrDevice, .unsupported),
            (.tooManyOpenFiles, nil, .tooManyOpenFiles, .tooManyDescriptors),
            (.noMemory, nil, .noMemory, .noMemory),
        ]
        for row in rows {
            let error = UserfaultError(
                opening: -(row.call?.rawValue ?? 0), device: -(row.device?.rawValue ?? 0), userModeOnly: false)
            #expect(error.systemCallAnswer == row.call && error.deviceAnswer == row.device)
            #expect(error.errno == row.errno && error.reason == row.reason)
        }
        let text = UserfaultError(opening: -1, device: -13, userModeOnly: false).description
        #expect(text.contains("userfaultfd(2) answered Operation not permitted"))
        #expect(text.contains("/dev/userfaultfd answered Permission denied"))
    }

    @Test func descriptionSaysWhatToDo() {
        let partial = UserfaultError(.copy, errno: .resourceTemporarilyUnavailable, bytesCompleted: 4096)
        #expect(partial.description.hasPrefix("UFFDIO_COPY failed: "))
        #expect(partial.description.contains("after 4096 bytes: continue after"))
        let exists = UserfaultError(.continue, errno: .fileExists)
        #expect(exists.description.contains("wake the threads"))
    }

    /// Each call asks something else of its arguments, and says so in its own words.
    @Test func invalidArgumentSaysWhatTheCallAsksFor() {
        let rows: [(operation: UserfaultError.Operation, words: String)] = [
            (.register, "all of the modes"), (.zeropage, "hugetlbfs"), (.continue, "mapped file"),
            (.move, "private anonymous"), (.writeProtect, "huge pages"), (.map, "page size"),
            (.send, "253 descriptors"),
            (.range, "wrap around"), (.pagemapScan, "categories"),
        ]
        for row in rows {
            let text = UserfaultError(row.operation, errno: .invalidArgument).description
            #expect(text.contains(row.words), "\(text)")
        }
        #expect(!UserfaultError(.range, errno: .invalidArgument).description.contains("memory type"))
    }

    @Test func kernelReleasesAreCompared() {
        for release in ["5.10.234", "5.10.0-39-amd64", "4.19", "5", "", "x.y"] {
            #expect(!KernelRelease(release: release).isAtLeast(5, 11), "\(release)")
        }
        for release in ["5.11.0", "5.11-rc1", "5.15.0-91-generic", "6.1.0-18-amd64", "7.3.4", "6.18.44+"] {
            #expect(KernelRelease(release: release).isAtLeast(5, 11), "\(release)")
        }
    }

    @Test func everyOperationHasAName() {
        for rawValue in 1...51 {
            #expect(!UserfaultError.Operation(rawValue: UInt8(rawValue)).description.hasPrefix("operation"))
        }
        #expect(UserfaultError.Operation(rawValue: 200).description == "operation 200")
    }
}
