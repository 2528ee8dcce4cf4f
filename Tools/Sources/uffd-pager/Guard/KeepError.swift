import Glibc
import SystemPackage

/// Why descriptors are not kept.
enum KeepError: Error, CustomStringConvertible {
    /// Who was to keep them has ended.
    case gone
    /// Who was to keep them has no room.
    case refused
    /// Systemd has no room.
    case full
    /// Systemd, or a keeper of an earlier version, could not pass so many names.
    case tooManyNames
    /// Too many descriptors were sent that nobody has received yet.
    case congested
    /// Systemd does not take what it is sent.
    case silent

    var description: String {
        switch self {
        case .gone: "the guard is gone"
        case .refused: "the descriptors cannot be kept for a successor: raise the limit of open files"
        case .full: "systemd keeps no more descriptors for a successor: raise FileDescriptorStoreMax= of the unit"
        case .tooManyNames:
            "the names of more descriptors cannot be passed to a successor: use shorter names of machines, or more services"
        case .congested: "the descriptors cannot be sent: too many of this user's are on their way"
        case .silent: "systemd does not take the descriptors"
        }
    }

    /// How long to wait for the processes that keep descriptors: who has stopped counts as gone.
    static let patience = Duration.seconds(10)
    static var seconds: UInt32 { UInt32(patience.components.seconds) }

    /// Sends descriptors, again and again while too many of this user's are on their way: as many as may be open
    /// (`ETOOMANYREFS`).
    ///
    /// - Parameter send: Returns why nothing was sent.
    /// - Returns: The same.
    static func retrying(_ send: () -> Errno?) -> Errno? {
        let end = ContinuousClock.now + patience
        while true {
            let error = send()
            guard error == .tooManyReferences, ContinuousClock.now < end else { return error }
            // Nothing tells when others have received theirs.
            poll(nil, 0, 10)
        }
    }
}
