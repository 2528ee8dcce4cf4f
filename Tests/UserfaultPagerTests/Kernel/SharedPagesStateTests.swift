import Synchronization
import SystemPackage
import Testing
import UserfaultFD

@testable import UserfaultPager

extension AddressRange {
    fileprivate func storeWord(_ word: UInt64, at offset: Int) {
        UnsafeMutableRawPointer(bitPattern: start + UInt(offset))!.storeBytes(of: word, as: UInt64.self)
    }
}

/// Shared pages of a process that was killed, and those of its successor.
@Suite(.serialized, .timeLimit(.minutes(5)))
struct SharedPagesStateTests {
    private static let pages = 16

    private func leftBy(_ state: SharedPagesState) throws -> SharedPagesState {
        try state.withUnsafeDescriptor { try SharedPagesState(duplicating: $0) }
    }

    @Test
    func wholePagesAreNotMadeAgain() throws {
        let file = try Memfd(count: Self.pages * pageBytes)
        let state = try SharedPagesState(for: file)
        let first = try SharedPages(file, from: NumberedSource(), state: state)
        #expect(try ask(first.source, at: 0, count: 4 * pageBytes).reply == .inFile(count: 4 * pageBytes))
        let mapping = try Mapping(file)
        mapping.range.storeWord(4711, at: pageBytes)

        let second = try SharedPages(file, from: NumberedSource(), state: leftBy(state))
        #expect(try ask(second.source, at: 0, count: 8 * pageBytes).reply == .inFile(count: 8 * pageBytes))
        #expect(mapping.range.loadWord(pageBytes) == 4711)
        #expect(mapping.range.loadWord(5 * pageBytes) == NumberedSource.word(5 * pageBytes))
    }

    /// A client may make a file as long as it likes.
    @Test
    func onlyWhatIsFilledIsMapped() throws {
        let file = try Memfd(count: 100 << 40)
        let count = Self.pages * pageBytes
        // Several would not fit into the address space.
        let all = try (0..<4).map { _ in try SharedPages(file, from: NumberedSource(), count: count) }
        #expect(try ask(all[3].source, at: count - pageBytes).reply == .inFile(count: pageBytes))
        #expect(try ask(all[3].source, at: count).reply == .poison)
        let state = try SharedPagesState(for: file, count: count)
        #expect(state.pageCount == Self.pages)
        let pages = try SharedPages(file, from: NumberedSource(), count: count, state: leftBy(state))
        #expect(try ask(pages.source, at: 0).reply == .inFile(count: pageBytes))
    }

    /// Pages that were in hand.
    ///
    /// Half of one may be written. Another was dropped, or not, while that was looked at: the kernel tells when it is mapped.
    @Test
    func pagesInHandAreDecidedAnew() throws {
        let file = try Memfd(count: Self.pages * pageBytes)
        let state = try SharedPagesState(for: file)
        let mapping = try Mapping(file)
        for (page, left) in [(1, SharedPagesState.Page.loading), (2, SharedPagesState.Page.doubted)] {
            mapping.range.storeWord(4711, at: page * pageBytes)
            state.page(page).pointee.store(left, ordering: .relaxed)
        }
        state.page(3).pointee.store(SharedPagesState.Page.doubted, ordering: .relaxed)

        let pages = try SharedPages(file, from: NumberedSource(), state: leftBy(state))
        _ = try ask(pages.source, at: 0, count: 4 * pageBytes)
        pages.source.forget(offset: 3 * pageBytes, count: pageBytes)
        _ = try ask(pages.source, at: 3 * pageBytes)
        #expect(mapping.range.loadWord(pageBytes) == NumberedSource.word(pageBytes))
        #expect(mapping.range.loadWord(2 * pageBytes) == 4711)
        #expect(mapping.range.loadWord(3 * pageBytes) == NumberedSource.word(3 * pageBytes))
    }

    /// Which huge pages a file has, a successor cannot see: none of them is mapped in it.
    @Test(.requiresHugePages(1))
    func aHugePageThatWasLookedAtIsNotMadeAgain() throws {
        let size = 2 << 20
        let file = try Memfd(count: size, hugePages: .twoMiB)
        let state = try SharedPagesState(for: file)
        let first = try SharedPages(file, from: NumberedSource(), state: state)
        _ = try ask(first.source, at: 0, count: size)
        let mapping = try Mapping(file)
        mapping.range.storeWord(4711, at: pageBytes)
        state.page(0).pointee.store(SharedPagesState.Page.doubted, ordering: .relaxed)

        let second = try SharedPages(file, from: NumberedSource(), state: leftBy(state))
        #expect(try ask(second.source, at: 0, count: size).reply == .inFile(count: size))
        #expect(mapping.range.loadWord(pageBytes) == 4711)
    }

    @Test
    func aPageBeyondTheStateIsNotThere() throws {
        let file = try Memfd(count: 2 * pageBytes)
        let state = try SharedPagesState(for: file)
        try file.resize(to: 4 * pageBytes)
        let pages = try SharedPages(file, from: NumberedSource(), state: leftBy(state))
        #expect(try ask(pages.source, at: 0, count: 4 * pageBytes).reply == .inFile(count: 2 * pageBytes))
        #expect(try ask(pages.source, at: 2 * pageBytes).reply == .poison)
    }

    @Test
    func aFileThatIsNoStateIsRefused() throws {
        func refusal(_ file: borrowing Memfd) -> String? {
            do throws(PagerError) {
                _ = try file.withUnsafeDescriptor { (file) throws(PagerError) in
                    try SharedPagesState(duplicating: file)
                }
                return nil
            } catch {
                return "\(error)"
            }
        }
        for count in [0, pageBytes, 1 << 20] {
            let file = try Memfd(count: count)
            #expect(refusal(file)?.contains("not the state of shared pages") == true)
            try file.addSeals(.shrink)
            #expect(refusal(file)?.contains("not the state of shared pages") == true)
        }
        let state = try SharedPagesState(for: Memfd(count: pageBytes))
        let file = try Memfd(duplicating: state.withUnsafeDescriptor { $0.rawValue })
        for (offset, word, text) in [
            (8, UInt64(2), "the version 2"), (24, .max, "not the state"), (16, 3, "not the state"),
        ] {
            let mapping = try Mapping(file)
            let before = mapping.range.loadWord(offset)
            mapping.range.storeWord(word, at: offset)
            #expect(refusal(file)?.contains(text) == true, "the word at \(offset)")
            mapping.range.storeWord(before, at: offset)
        }
        #expect(refusal(file) == nil)
    }

    @Test(.requiresHugePages(1))
    func aStateOfOtherPagesIsRefused() throws {
        let state = try SharedPagesState(for: Memfd(count: 2 << 20))
        let huge = try Memfd(count: 2 << 20, hugePages: .twoMiB)
        #expect(throws: PagerError.self) { try SharedPages(huge, from: NumberedSource(), state: state) }
    }
}
