/// A description of an option set: the names that are known, then what is left as a number.
func describeFlags<Flags: OptionSet>(_ flags: Flags, _ names: [(Flags, String)]) -> String
where Flags.RawValue: FixedWidthInteger, Flags.Element == Flags {
    var parts: [String] = []
    var rest = flags.rawValue
    for (flag, name) in names where flags.contains(flag) {
        parts.append(name)
        rest &= ~flag.rawValue
    }
    if rest != 0 { parts.append("0x" + String(rest, radix: 16)) }
    return "[" + parts.joined(separator: ", ") + "]"
}
