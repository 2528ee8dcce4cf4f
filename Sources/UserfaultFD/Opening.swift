internal import CUserfaultFD
internal import SystemPackage

/// The ways to a new descriptor, and which of them to try.
enum Opening {
    /// A new descriptor.
    ///
    /// A struct, because a tuple cannot hold an owner.
    struct Opened: ~Copyable {
        let descriptor: OwnedDescriptor
        let handlesKernelFaults: Bool
    }

    /// What one way answered: a descriptor or `-errno`.
    private struct Answer {
        var value: CInt = 0
        var handlesKernelFaults = false
    }

    static func open(_ options: UserfaultFD.OpenOptions) throws(UserfaultError) -> Opened {
        var flags: CInt = 0
        if options.closeOnExec { flags |= CUFFD_O_CLOEXEC }
        if options.nonBlocking { flags |= CUFFD_O_NONBLOCK }

        var call = Answer()
        if options.way != .device {
            call = open(flags, options.faults, with: cuffd_userfaultfd)
            if call.value >= 0 { return opened(call) }
        }
        var device = Answer()
        if options.way == .device || (options.way == .either && anotherWayMayHelp(call.value)) {
            device = openDevice(flags, options.faults)
            if device.value >= 0 { return opened(device) }
        }
        throw UserfaultError(
            opening: call.value, device: device.value, userModeOnly: options.faults == .userMode)
    }

    /// Only a refusal is worth a second way: a full descriptor table is full for the device too.
    private static func anotherWayMayHelp(_ answer: CInt) -> Bool {
        let refusals: [Errno] = [.notPermitted, .permissionDenied, .noFunction]
        return refusals.contains(Errno(rawValue: -answer))
    }

    private static func openDevice(_ flags: CInt, _ faults: UserfaultFD.OpenOptions.Faults) -> Answer {
        let answer = cuffd_device_open()
        guard answer >= 0 else { return Answer(value: answer) }
        let device = OwnedDescriptor(adopting: answer)
        return open(flags, faults) { cuffd_device_new(device.rawValue, $0) }
    }

    private static func open(
        _ flags: CInt, _ faults: UserfaultFD.OpenOptions.Faults, with call: (CInt) -> CInt
    ) -> Answer {
        if faults == .userMode {
            let answer = call(flags | CInt(CUFFD_USER_MODE_ONLY))
            // Linux 5.10 does not know the flag, and is the only kernel to refuse these flags.
            guard answer == -Errno.invalidArgument.rawValue else { return Answer(value: answer) }
        }
        return Answer(value: call(flags), handlesKernelFaults: true)
    }

    private static func opened(_ answer: Answer) -> Opened {
        Opened(
            descriptor: OwnedDescriptor(adopting: answer.value), handlesKernelFaults: answer.handlesKernelFaults)
    }
}
