/// The calls of userfaultfd, as tags: what a behaviour is about.
package enum KernelCall: String, CaseIterable, Sendable {
    case open, api, register, unregister, wake, copy, zeropage, move, writeprotect, `continue`, poison, rwprotect
    case setMode = "set-mode"
    case read
    case pagemapScan = "pagemap-scan"
}

extension Coverage {
    /// Whether it is about UFFDIO_CONTINUE on shared memory, which the page lists by itself.
    var isContinue: Bool { "\(self)".hasPrefix("continue") }

    /// The calls that the behaviour is about.
    var calls: [KernelCall] {
        switch self {
        case .upstream: []
        case .continueResolves, .continueExists, .continueLeaksNothing, .continueKeepsReferences, .continueResident,
            .continueDirty, .continueCopyOnWrite, .continueWriteFirst, .continueErrors, .continueRaces,
            .continueAllocated, .continueSwapped, .continueHugeTail, .continueOtherProcess, .continueKernelAccess,
            .privateContinue, .failedContinue, .privateStores, .unwrittenPages, .hugePagePart, .swappedMinor:
            [.continue]
        case .continueProtected, .minorProtection: [.continue, .writeprotect]
        case .continueWithoutWake: [.continue, .wake]
        case .privateCopy, .atomicity, .copySources: [.copy]
        case .fillProgress, .residentMemory, .truncation, .rangeLimits, .exhaustion, .hugePages, .arguments:
            [.copy, .continue]
        case .release: [.unregister]
        case .protectionSurvives, .protectErrors: [.writeprotect]
        case .movedState, .moveErrors: [.move]
        case .handshake, .callOrder, .fdinfo: [.api]
        case .opening: [.open]
        case .waking, .manyWaiters: [.wake]
        case .registerErrors, .registerAgain, .mixedMemory, .specialMappings, .unwritableMemory: [.register]
        case .unregister, .foreignDescriptors: [.register, .unregister]
        case .exactAddresses, .threadIDs, .reading, .polling, .unmapEvent, .removeEvent, .remapEvent, .forkEvent:
            [.read]
        case .poison: [.poison]
        case .zeropage: [.zeropage]
        case .readWriteProtect: [.rwprotect, .setMode]
        case .asyncProtection: [.writeprotect, .pagemapScan]
        case .kernelFaults, .endedProcess, .passedDescriptors, .signals, .holes, .guardRegions, .brokenPages,
            .remoteAccess, .dumpAndExit:
            []
        }
    }
}
