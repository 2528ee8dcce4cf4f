import CLZ4
import Glibc

/// A file of lines of text, compressed and already unlinked.
func compressedSample(byteCount: Int) -> CInt {
    var text: [UInt8] = []
    text.reserveCapacity(byteCount + 128)
    var generator = Generator()
    let words = ["page", "fault", "thread", "memory", "kernel", "signal", "block", "region"]
    while text.count < byteCount {
        text += "line \(text.count):".utf8
        for _ in 0..<8 { text += " \(words.randomElement(using: &generator)!) \(generator.next() % 1000)".utf8 }
        text.append(10)
    }
    text.removeLast(text.count - byteCount)

    var preferences = LZ4F_preferences_t()
    preferences.frameInfo.blockSizeID = LZ4F_max64KB
    preferences.frameInfo.blockMode = LZ4F_blockIndependent
    preferences.frameInfo.contentSize = UInt64(byteCount)
    let frame = [UInt8](unsafeUninitializedCapacity: LZ4F_compressFrameBound(byteCount, &preferences)) { room, used in
        used = LZ4F_compressFrame(room.baseAddress, room.count, text, text.count, &preferences)
        precondition(LZ4F_isError(used) == 0, "the sample cannot be compressed")
    }

    var path = Array("/tmp/compressed-file-XXXXXX".utf8CString)
    let file = mkstemp(&path)
    guard file >= 0 else { fatalError("the sample cannot be made: errno \(errno)") }
    unlink(path)
    guard write(file, frame, frame.count) == frame.count else {
        fatalError("the sample cannot be written: errno \(errno)")
    }
    return file
}

/// The same numbers in every run.
struct Generator: RandomNumberGenerator {
    private var state: UInt64 = 1

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state >> 33 | state << 31
    }
}
