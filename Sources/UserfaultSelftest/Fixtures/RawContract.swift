import CUserfaultFD
package import SystemPackage
package import UserfaultFD

/// What UFFDIO_API did to its argument: the errno, and the three words that the kernel left there.
package struct RawHandshake: Equatable, Sendable, CustomStringConvertible {
    package var errno: Int32
    package var api: UInt64
    package var features: UInt64
    package var ioctls: UInt64

    /// The call was refused, and the argument zeroed, so that a refusal tells nothing.
    package static func refused(_ errno: Errno) -> RawHandshake {
        RawHandshake(errno: errno.rawValue, api: 0, features: 0, ioctls: 0)
    }

    package var description: String {
        let words = [api, features, ioctls].map { "0x" + String($0, radix: 16) }.joined(separator: " ")
        return "errno \(errno), api, features and ioctls \(words)"
    }
}

extension UserfaultFD {
    /// Makes UFFDIO_API with any numbers.
    ///
    /// The ioctls word holds a number before, which the kernel must replace.
    package func rawHandshake(api: UInt64 = CUFFD_API_VERSION, features: UInt64) -> RawHandshake {
        var argument = cuffd_api(api: api, features: features, ioctls: UInt64(bitPattern: RawAnswer.untouched))
        let errno = rawIoctl(CUFFD_IOC_API, &argument)
        return RawHandshake(
            errno: errno, api: argument.api, features: argument.features, ioctls: argument.ioctls)
    }

    /// Makes UFFDIO_REGISTER with any numbers; the output word is the mask of ioctls.
    package func rawRegister(start: UInt, count: UInt, mode: UInt64) -> RawAnswer {
        var argument = cuffd_register(
            range: cuffd_range(start: UInt64(start), len: UInt64(count)), mode: mode,
            ioctls: UInt64(bitPattern: RawAnswer.untouched))
        let errno = rawIoctl(CUFFD_IOC_REGISTER, &argument)
        return RawAnswer(errno: errno, word: Int64(bitPattern: argument.ioctls))
    }

    /// Makes UFFDIO_REGISTER for a range.
    package func rawRegister(_ range: AddressRange, _ modes: RegisterModes) -> RawAnswer {
        rawRegister(start: range.start, count: UInt(range.count), mode: modes.rawValue)
    }

    /// Makes UFFDIO_UNREGISTER with any numbers.
    ///
    /// Answers 0 or the errno.
    package func rawUnregister(start: UInt, count: UInt) -> Int32 {
        var argument = cuffd_range(start: UInt64(start), len: UInt64(count))
        return rawIoctl(CUFFD_IOC_UNREGISTER, &argument)
    }

    /// Makes UFFDIO_WAKE with any numbers.
    ///
    /// Answers 0 or the errno.
    package func rawWake(start: UInt, count: UInt) -> Int32 {
        var argument = cuffd_range(start: UInt64(start), len: UInt64(count))
        return rawIoctl(CUFFD_IOC_WAKE, &argument)
    }
}

/// Fails unless a call answered this errno; `nil` means success.
package func expectErrno(
    _ actual: Int32, _ right: Errno?, _ name: @autoclosure () -> String, file: String = #fileID, line: Int = #line
) throws(CaseFailure) {
    try expectEqual(
        actual == 0 ? nil : Errno(rawValue: actual), right, "errno of \(name())", file: file, line: line)
}
