import UserfaultPager

/// Zeros that are loaded and counted: of a `ZeroSource` the pager knows that there is nothing to load.
let loadedZeros = ClosureSource<Never> { _, _ in .zero }
