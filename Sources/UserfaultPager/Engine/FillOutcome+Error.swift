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
