// Proves cuffd_abi.h at compile time: sizes, offsets and request numbers, and, for every name that the machine's
// own <linux/userfaultfd.h> knows, that both say the same.
#include "cuffd_abi.h"

#include <linux/fs.h>
#include <linux/ioctl.h>
#include <linux/userfaultfd.h>
#include <stddef.h>

#define SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type " has the wrong size")
#define OFFSET(type, field, bytes) _Static_assert(offsetof(struct type, field) == (bytes), #type "." #field " is misplaced")
#define SAME(ours, theirs) _Static_assert((ours) == (theirs), #ours " differs from " #theirs)

// MARK: Layout

SIZE(cuffd_msg, 32);
OFFSET(cuffd_msg, event, 0);
OFFSET(cuffd_msg, arg.pagefault.flags, 8);
OFFSET(cuffd_msg, arg.pagefault.address, 16);
OFFSET(cuffd_msg, arg.pagefault.ptid, 24);
OFFSET(cuffd_msg, arg.fork.ufd, 8);
OFFSET(cuffd_msg, arg.remap.from, 8);
OFFSET(cuffd_msg, arg.remap.to, 16);
OFFSET(cuffd_msg, arg.remap.len, 24);
OFFSET(cuffd_msg, arg.remove.start, 8);
OFFSET(cuffd_msg, arg.remove.end, 16);

SIZE(cuffd_api, 24);
OFFSET(cuffd_api, features, 8);
OFFSET(cuffd_api, ioctls, 16);
SIZE(cuffd_range, 16);
OFFSET(cuffd_range, len, 8);
SIZE(cuffd_register, 32);
OFFSET(cuffd_register, mode, 16);
OFFSET(cuffd_register, ioctls, 24);
SIZE(cuffd_copy, 40);
OFFSET(cuffd_copy, src, 8);
OFFSET(cuffd_copy, len, 16);
OFFSET(cuffd_copy, mode, 24);
OFFSET(cuffd_copy, copy, 32);
SIZE(cuffd_zeropage, 32);
OFFSET(cuffd_zeropage, mode, 16);
OFFSET(cuffd_zeropage, zeropage, 24);
SIZE(cuffd_move, 40);
OFFSET(cuffd_move, src, 8);
OFFSET(cuffd_move, len, 16);
OFFSET(cuffd_move, mode, 24);
OFFSET(cuffd_move, move, 32);
SIZE(cuffd_writeprotect, 24);
OFFSET(cuffd_writeprotect, mode, 16);
SIZE(cuffd_continue, 32);
OFFSET(cuffd_continue, mode, 16);
OFFSET(cuffd_continue, mapped, 24);
SIZE(cuffd_poison, 32);
OFFSET(cuffd_poison, mode, 16);
OFFSET(cuffd_poison, updated, 24);
SIZE(cuffd_rwprotect, 24);
OFFSET(cuffd_rwprotect, mode, 16);
SIZE(cuffd_set_mode, 16);
OFFSET(cuffd_set_mode, disable, 8);
SIZE(cuffd_page_region, 24);
SIZE(cuffd_pm_scan_arg, 96);
OFFSET(cuffd_pm_scan_arg, walk_end, 32);
OFFSET(cuffd_pm_scan_arg, vec, 40);
OFFSET(cuffd_pm_scan_arg, return_mask, 88);

// MARK: Request numbers

// The generic encoding of direction, size, magic and number; x86-64, arm64 and riscv64 share it.
SAME(CUFFD_IOC_API, _IOWR(0xAA, CUFFD_NR_API, struct cuffd_api));
SAME(CUFFD_IOC_REGISTER, _IOWR(0xAA, CUFFD_NR_REGISTER, struct cuffd_register));
SAME(CUFFD_IOC_UNREGISTER, _IOR(0xAA, CUFFD_NR_UNREGISTER, struct cuffd_range));
SAME(CUFFD_IOC_WAKE, _IOR(0xAA, CUFFD_NR_WAKE, struct cuffd_range));
SAME(CUFFD_IOC_COPY, _IOWR(0xAA, CUFFD_NR_COPY, struct cuffd_copy));
SAME(CUFFD_IOC_ZEROPAGE, _IOWR(0xAA, CUFFD_NR_ZEROPAGE, struct cuffd_zeropage));
SAME(CUFFD_IOC_MOVE, _IOWR(0xAA, CUFFD_NR_MOVE, struct cuffd_move));
SAME(CUFFD_IOC_WRITEPROTECT, _IOWR(0xAA, CUFFD_NR_WRITEPROTECT, struct cuffd_writeprotect));
SAME(CUFFD_IOC_CONTINUE, _IOWR(0xAA, CUFFD_NR_CONTINUE, struct cuffd_continue));
SAME(CUFFD_IOC_POISON, _IOWR(0xAA, CUFFD_NR_POISON, struct cuffd_poison));
SAME(CUFFD_IOC_RWPROTECT, _IOWR(0xAA, CUFFD_NR_RWPROTECT, struct cuffd_rwprotect));
SAME(CUFFD_IOC_SET_MODE, _IOW(0xAA, CUFFD_NR_SET_MODE, struct cuffd_set_mode));
SAME(CUFFD_IOC_NEW, _IO(0xAA, 0x00));
SAME(CUFFD_IOC_PAGEMAP_SCAN, _IOWR('f', 16, struct cuffd_pm_scan_arg));

// MARK: Against the machine's header
//
// Names that came after Linux 5.10 are in #ifdef: the header may be older than this file.

SIZE(uffd_msg, sizeof(struct cuffd_msg));
SAME(offsetof(struct cuffd_msg, arg.pagefault.address), offsetof(struct uffd_msg, arg.pagefault.address));
SAME(offsetof(struct cuffd_msg, arg.pagefault.ptid), offsetof(struct uffd_msg, arg.pagefault.feat.ptid));
SAME(offsetof(struct cuffd_msg, arg.remap.len), offsetof(struct uffd_msg, arg.remap.len));
SAME(offsetof(struct cuffd_msg, arg.remove.end), offsetof(struct uffd_msg, arg.remove.end));
SAME(CUFFD_API_VERSION, UFFD_API);
SAME(CUFFD_IOC_API, UFFDIO_API);
SAME(CUFFD_IOC_REGISTER, UFFDIO_REGISTER);
SAME(CUFFD_IOC_UNREGISTER, UFFDIO_UNREGISTER);
SAME(CUFFD_IOC_WAKE, UFFDIO_WAKE);
SAME(CUFFD_IOC_COPY, UFFDIO_COPY);
SAME(CUFFD_IOC_ZEROPAGE, UFFDIO_ZEROPAGE);
SAME(CUFFD_IOC_WRITEPROTECT, UFFDIO_WRITEPROTECT);
SAME(CUFFD_EVENT_PAGEFAULT, UFFD_EVENT_PAGEFAULT);
SAME(CUFFD_EVENT_FORK, UFFD_EVENT_FORK);
SAME(CUFFD_EVENT_REMAP, UFFD_EVENT_REMAP);
SAME(CUFFD_EVENT_REMOVE, UFFD_EVENT_REMOVE);
SAME(CUFFD_EVENT_UNMAP, UFFD_EVENT_UNMAP);
SAME(CUFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFD_FEATURE_PAGEFAULT_FLAG_WP);
SAME(CUFFD_FEATURE_EVENT_FORK, UFFD_FEATURE_EVENT_FORK);
SAME(CUFFD_FEATURE_EVENT_REMAP, UFFD_FEATURE_EVENT_REMAP);
SAME(CUFFD_FEATURE_EVENT_REMOVE, UFFD_FEATURE_EVENT_REMOVE);
SAME(CUFFD_FEATURE_MISSING_HUGETLBFS, UFFD_FEATURE_MISSING_HUGETLBFS);
SAME(CUFFD_FEATURE_MISSING_SHMEM, UFFD_FEATURE_MISSING_SHMEM);
SAME(CUFFD_FEATURE_EVENT_UNMAP, UFFD_FEATURE_EVENT_UNMAP);
SAME(CUFFD_FEATURE_SIGBUS, UFFD_FEATURE_SIGBUS);
SAME(CUFFD_FEATURE_THREAD_ID, UFFD_FEATURE_THREAD_ID);
SAME(CUFFD_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_MISSING);
SAME(CUFFD_REGISTER_MODE_WP, UFFDIO_REGISTER_MODE_WP);
SAME(CUFFD_COPY_MODE_DONTWAKE, UFFDIO_COPY_MODE_DONTWAKE);
SAME(CUFFD_COPY_MODE_WP, UFFDIO_COPY_MODE_WP);
SAME(CUFFD_ZEROPAGE_MODE_DONTWAKE, UFFDIO_ZEROPAGE_MODE_DONTWAKE);
SAME(CUFFD_WRITEPROTECT_MODE_WP, UFFDIO_WRITEPROTECT_MODE_WP);
SAME(CUFFD_WRITEPROTECT_MODE_DONTWAKE, UFFDIO_WRITEPROTECT_MODE_DONTWAKE);
SAME(CUFFD_PAGEFAULT_FLAG_WRITE, UFFD_PAGEFAULT_FLAG_WRITE);
SAME(CUFFD_PAGEFAULT_FLAG_WP, UFFD_PAGEFAULT_FLAG_WP);

#ifdef UFFD_USER_MODE_ONLY
SAME(CUFFD_USER_MODE_ONLY, UFFD_USER_MODE_ONLY);
#endif
#ifdef USERFAULTFD_IOC_NEW
SAME(CUFFD_IOC_NEW, USERFAULTFD_IOC_NEW);
#endif
#ifdef UFFDIO_CONTINUE
SAME(CUFFD_IOC_CONTINUE, UFFDIO_CONTINUE);
SAME(CUFFD_REGISTER_MODE_MINOR, UFFDIO_REGISTER_MODE_MINOR);
SAME(CUFFD_PAGEFAULT_FLAG_MINOR, UFFD_PAGEFAULT_FLAG_MINOR);
SAME(CUFFD_CONTINUE_MODE_DONTWAKE, UFFDIO_CONTINUE_MODE_DONTWAKE);
SAME(CUFFD_FEATURE_MINOR_HUGETLBFS, UFFD_FEATURE_MINOR_HUGETLBFS);
#endif
#ifdef UFFD_FEATURE_MINOR_SHMEM
SAME(CUFFD_FEATURE_MINOR_SHMEM, UFFD_FEATURE_MINOR_SHMEM);
#endif
#ifdef UFFD_FEATURE_EXACT_ADDRESS
SAME(CUFFD_FEATURE_EXACT_ADDRESS, UFFD_FEATURE_EXACT_ADDRESS);
#endif
#ifdef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
SAME(CUFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFD_FEATURE_WP_HUGETLBFS_SHMEM);
#endif
#ifdef UFFD_FEATURE_WP_UNPOPULATED
SAME(CUFFD_FEATURE_WP_UNPOPULATED, UFFD_FEATURE_WP_UNPOPULATED);
#endif
#ifdef UFFDIO_CONTINUE_MODE_WP
SAME(CUFFD_CONTINUE_MODE_WP, UFFDIO_CONTINUE_MODE_WP);
#endif
#ifdef UFFDIO_POISON
SAME(CUFFD_IOC_POISON, UFFDIO_POISON);
SAME(CUFFD_POISON_MODE_DONTWAKE, UFFDIO_POISON_MODE_DONTWAKE);
SAME(CUFFD_FEATURE_POISON, UFFD_FEATURE_POISON);
#endif
#ifdef UFFD_FEATURE_WP_ASYNC
SAME(CUFFD_FEATURE_WP_ASYNC, UFFD_FEATURE_WP_ASYNC);
#endif
#ifdef UFFDIO_MOVE
SAME(CUFFD_IOC_MOVE, UFFDIO_MOVE);
SAME(CUFFD_MOVE_MODE_DONTWAKE, UFFDIO_MOVE_MODE_DONTWAKE);
SAME(CUFFD_MOVE_MODE_ALLOW_SRC_HOLES, UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES);
SAME(CUFFD_FEATURE_MOVE, UFFD_FEATURE_MOVE);
#endif
#ifdef UFFDIO_RWPROTECT
SAME(CUFFD_IOC_RWPROTECT, UFFDIO_RWPROTECT);
SAME(CUFFD_REGISTER_MODE_RWP, UFFDIO_REGISTER_MODE_RWP);
SAME(CUFFD_PAGEFAULT_FLAG_RWP, UFFD_PAGEFAULT_FLAG_RWP);
SAME(CUFFD_RWPROTECT_MODE_RWP, UFFDIO_RWPROTECT_MODE_RWP);
SAME(CUFFD_RWPROTECT_MODE_DONTWAKE, UFFDIO_RWPROTECT_MODE_DONTWAKE);
SAME(CUFFD_FEATURE_RWP, UFFD_FEATURE_RWP);
SAME(CUFFD_FEATURE_RWP_ASYNC, UFFD_FEATURE_RWP_ASYNC);
#endif
#ifdef UFFDIO_SET_MODE
SAME(CUFFD_IOC_SET_MODE, UFFDIO_SET_MODE);
#endif
#ifdef PAGEMAP_SCAN
SAME(CUFFD_IOC_PAGEMAP_SCAN, PAGEMAP_SCAN);
SAME(CUFFD_PM_SCAN_WP_MATCHING, PM_SCAN_WP_MATCHING);
SAME(CUFFD_PM_SCAN_CHECK_WPASYNC, PM_SCAN_CHECK_WPASYNC);
SAME(CUFFD_PAGE_IS_WPALLOWED, PAGE_IS_WPALLOWED);
SAME(CUFFD_PAGE_IS_WRITTEN, PAGE_IS_WRITTEN);
SAME(CUFFD_PAGE_IS_FILE, PAGE_IS_FILE);
SAME(CUFFD_PAGE_IS_PRESENT, PAGE_IS_PRESENT);
SAME(CUFFD_PAGE_IS_SWAPPED, PAGE_IS_SWAPPED);
SAME(CUFFD_PAGE_IS_PFNZERO, PAGE_IS_PFNZERO);
SAME(CUFFD_PAGE_IS_HUGE, PAGE_IS_HUGE);
SIZE(pm_scan_arg, sizeof(struct cuffd_pm_scan_arg));
SAME(offsetof(struct cuffd_pm_scan_arg, walk_end), offsetof(struct pm_scan_arg, walk_end));
SAME(offsetof(struct cuffd_pm_scan_arg, vec), offsetof(struct pm_scan_arg, vec));
SAME(offsetof(struct cuffd_pm_scan_arg, max_pages), offsetof(struct pm_scan_arg, max_pages));
SAME(offsetof(struct cuffd_pm_scan_arg, return_mask), offsetof(struct pm_scan_arg, return_mask));
SIZE(page_region, sizeof(struct cuffd_page_region));
#endif
#ifdef PAGE_IS_SOFT_DIRTY
SAME(CUFFD_PAGE_IS_SOFT_DIRTY, PAGE_IS_SOFT_DIRTY);
#endif
#ifdef PAGE_IS_GUARD
SAME(CUFFD_PAGE_IS_GUARD, PAGE_IS_GUARD);
#endif
#ifdef PAGE_IS_ACCESSED
SAME(CUFFD_PAGE_IS_ACCESSED, PAGE_IS_ACCESSED);
#endif
