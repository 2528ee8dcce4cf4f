/// What MOVE takes pages from, and where to: anonymous memory.
extension Area {
    /// A filled area and an empty one of the same length.
    package static func sourceAndDestination(
        _ context: CaseContext, pages: Int = 4
    ) throws -> (source: Area, destination: Area) {
        let (source, destination) = try (Area(context, pages: pages), Area(context, pages: pages))
        source.fillView()
        return (source, destination)
    }

    /// The same, where the filled one consists of so many transparent huge pages, and whole ones fit into the other.
    ///
    /// A skip where the kernel has none to give.
    package static func hugeSourceAndDestination(
        _ context: CaseContext, count: Int = 1
    ) throws -> (source: Area, destination: Area) {
        let source = try Area.transparentHuge(context, count: count)
        return (source, try Area(context, pages: source.pageCount, alignment: hugePageBytes))
    }
}
