/// What happens to pages that were not loaded when a region or a pager ends.
///
/// Pages for which the source says that it has nothing but zeros, see ``PageSource/extent(from:)``, are left as they are
/// in every case.
public enum Ending: Hashable, Sendable {
    /// Whoever touches them gets `SIGBUS`. Needs Linux 6.6.
    ///
    /// The kernel marks every page of the rest in the page tables: for each GiB of 4 KiB pages that was never touched, that is
    /// about a tenth of a second, 2 MiB of page tables, and 2 MiB of the pager's memory for as long as it lives. No limit
    /// shortens it, because a page without the mark would be zeros. If the memory is not used any more, unmap it first:
    /// what is not mapped costs nothing. ``leaveZeros`` costs nothing either.
    case poison

    /// They are loaded first.
    case populate

    /// They become what the memory is without a pager: zeros, or the content of the file that is mapped.
    ///
    /// - Warning: Whoever touches a page that was not loaded reads zeros in place of its content, and nothing tells. It is
    ///   right only if nobody will touch such a page, or if zeros are its content.
    case leaveZeros
}
