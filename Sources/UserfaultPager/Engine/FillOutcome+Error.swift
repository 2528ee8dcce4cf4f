internal import SystemPackage
internal import UserfaultFD

extension FillOutcome {
    init(_ error: UserfaultError) {
        switch error.reason {
        case .partial: self = .stopped(after: error.bytesCompleted)
        case .alreadyMapped, .alreadyMappedOrPoolEmpty: self = .exists
        case .mappingIsChanging: self = .changing
        case .noSuchRange: self = .noRange
        case .noPageInFile: self = .noPage
        case .processGone: self = .processGone
        default: self = .failed
        }
    }

    /// What a call that poisons answers.
    ///
    /// Past the end of a file that was cut there is nothing to be poisoned: whoever touches it gets `SIGBUS`.
    static func poisoning(_ poison: () throws(UserfaultError) -> Void) -> FillOutcome {
        do throws(UserfaultError) {
            try poison()
            return .done
        } catch {
            return error.errno == .badAddress ? .noRange : FillOutcome(error)
        }
    }

    /// What a call that fills answers.
    @inline(__always)
    init(_ fill: () throws(UserfaultError) -> Void) {
        do throws(UserfaultError) {
            try fill()
            self = .done
        } catch {
            self = FillOutcome(error)
        }
    }
}
