// What the code of the documents uses and does not declare. Scripts/check/docs-code.sh compiles both together, and
// nothing runs.
import Logging
import UserfaultFD
import UserfaultPager

let memory: Mapping = neverMade()
let userfaultfd: UserfaultFD = neverMade()
let pager: Pager<ZeroSource> = neverMade()
let logger: Logger = neverMade()

/// A file that is open for reading.
let descriptor: Int32 = neverMade()

/// Keeps the contents of pages that were written.
func save(_ range: AddressRange) {}

func neverMade<Value: ~Copyable>() -> Value { fatalError() }
