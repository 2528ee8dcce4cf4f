package import UserfaultFD

extension Mapping {
    /// Opens a userfaultfd that gets the faults of this memory.
    ///
    /// - Parameters:
    ///   - modes: The faults that it gets.
    ///   - features: What is enabled besides.
    ///   - options: How to open; by default for faults of user code only.
    package borrowing func registered(
        _ modes: UserfaultFD.RegisterModes, features: UserfaultFD.Features = [],
        options: UserfaultFD.OpenOptions = UserfaultFD.OpenOptions()
    ) throws(UserfaultError) -> UserfaultFD {
        let uffd = try UserfaultFD(features: features, options: options)
        try uffd.register(range, modes: modes)
        return uffd
    }
}

extension Area {
    /// Opens a userfaultfd that gets the faults of the view.
    package func registered(
        _ modes: UserfaultFD.RegisterModes, features: UserfaultFD.Features = [],
        options: UserfaultFD.OpenOptions = UserfaultFD.OpenOptions()
    ) throws(UserfaultError) -> UserfaultFD {
        try view.registered(modes, features: features, options: options)
    }
}
