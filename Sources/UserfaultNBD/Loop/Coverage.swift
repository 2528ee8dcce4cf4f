#if NBD
/// Which bytes of a range have come, each of them once.
///
/// A server can send the same bytes twice: a number of bytes does not say that all have come.
struct Coverage {
    /// The most separate pieces: a server that needs more of them is no server for pages.
    static var mostPieces: Int { 4096 }

    let range: Range<Int>
    /// In order, with gaps between them.
    private var pieces: [Range<Int>] = []
    /// All of it has come as one piece, as nearly always: then there is no list.
    private(set) var isWhole = false
    /// Whether something came that could not be.
    private var isBroken = false

    init(of range: Range<Int>) {
        self.range = range
    }

    var byteCount: Int { isWhole ? range.count : pieces.reduce(0) { $0 + $1.count } }

    var isComplete: Bool { !isBroken && (isWhole || range.isEmpty || pieces.count == 1 && pieces[0] == range) }

    /// Notes bytes that have come.
    ///
    /// If some have come before, or were not asked for, it never becomes complete.
    mutating func add(_ piece: Range<Int>) {
        guard !isBroken, !piece.isEmpty else { return }
        guard !isWhole, piece != range || !pieces.isEmpty else {
            isBroken = isWhole
            isWhole = true
            return
        }
        // Pieces come in order from most servers: the place is looked for from the end.
        var place = pieces.count
        while place > 0, pieces[place - 1].lowerBound >= piece.upperBound { place -= 1 }
        let before = place > 0 ? pieces[place - 1] : nil
        guard range.contains(piece), (before?.upperBound ?? range.lowerBound) <= piece.lowerBound else {
            isBroken = true
            return
        }
        insert(piece, at: place)
        isBroken = pieces.count > Self.mostPieces
    }

    private mutating func insert(_ piece: Range<Int>, at place: Int) {
        var whole = piece
        var replaced = place..<place
        if place < pieces.count, pieces[place].lowerBound == piece.upperBound {
            whole = whole.lowerBound..<pieces[place].upperBound
            replaced = place..<place + 1
        }
        if place > 0, pieces[place - 1].upperBound == piece.lowerBound {
            whole = pieces[place - 1].lowerBound..<whole.upperBound
            replaced = place - 1..<replaced.upperBound
        }
        pieces.replaceSubrange(replaced, with: CollectionOfOne(whole))
    }
}
#endif
