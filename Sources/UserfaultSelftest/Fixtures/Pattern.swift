import CSelftestSupport

/// Contents that tell one page, and one place in it, from every other.
///
/// Every 8-byte word holds the seed, the page's index and the word's index, so that a page that is shifted, torn, stale
/// or another's is seen. No word is zero. A page's first byte tells it from its neighbours, too.
package enum Pattern {
    package static func word(seed: UInt8, page: Int, index: Int) -> UInt64 {
        let tag = UInt64(truncatingIfNeeded: seed) << 56 | UInt64(truncatingIfNeeded: page & 0xFF_FFFF) << 32
        return tag | (0x0080_0000_8000_0000 + UInt64(byte(seed: seed, page: page)) + UInt64(index))
    }

    /// The first byte of a page, for cases that touch a single one.
    package static func byte(seed: UInt8 = 0, page: Int) -> UInt8 {
        UInt8(1 + (page * 7 + Int(seed) * 13) % 251)
    }

    /// Fills memory with the pattern of a page.
    package static func write(seed: UInt8, page: Int, at address: UInt, count: Int) {
        // The index is the lowest part of a word, so a page's words count up.
        css_fill_counting(
            UnsafeMutablePointer(bitPattern: address)!, count / 8, word(seed: seed, page: page, index: 0))
    }

    /// Fails unless memory holds the pattern of a page.
    package static func expect(
        seed: UInt8, page: Int, at address: UInt, count: Int, _ what: @autoclosure () -> String,
        file: String = #fileID, line: Int = #line
    ) throws(CaseFailure) {
        let words = UnsafePointer<UInt64>(bitPattern: address)!
        let index = css_first_not_counting(words, count / 8, word(seed: seed, page: page, index: 0))
        if index < count / 8 {
            let right = hex(word(seed: seed, page: page, index: index))
            throw CaseFailure(
                expected: "\(what()), page \(page), word \(index): \(right)", seen: hex(words[index]), file: file,
                line: line)
        }
    }

    /// Fails unless memory is all zeros.
    package static func expectZero(
        at address: UInt, count: Int, _ what: @autoclosure () -> String, file: String = #fileID, line: Int = #line
    ) throws(CaseFailure) {
        let words = UnsafePointer<UInt64>(bitPattern: address)!
        let index = css_first_not_zero(words, count / 8)
        if index < count / 8 {
            throw CaseFailure(
                expected: "\(what()), word \(index): zero", seen: hex(words[index]), file: file, line: line)
        }
    }

    static func hex(_ word: UInt64) -> String { "0x" + String(word, radix: 16) }
}
