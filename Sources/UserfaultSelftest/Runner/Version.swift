/// Which version of this repository's programs this is.
///
/// `Scripts/check/sources.sh` compares it with the file VERSION. The packages Tools and Benchmarks compile this file too:
/// they have a link to it.
package enum Version {
    package static let text = "0.1.0-dev"
}
