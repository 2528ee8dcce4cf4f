/// Which version of the suite this is.
package enum Version {
    /// As the changelog has it; a test compares the two.
    package static let text = "unreleased"

    /// What `--version` prints.
    package static var line: String {
        "\(text), with \(AllCases.cases.count) cases for userfaultfd through Linux 7.3"
    }
}
