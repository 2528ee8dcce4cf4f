// The userfaultfd ABI through Linux 7.3, and what PAGEMAP_SCAN adds to it.
//
// These are this project's own declarations, so that the package builds with kernel headers of any age.
// cuffd_abi_check.c proves their layout, and compares them with <linux/userfaultfd.h> where it knows the name.
// Constants are enumerators with a fixed 64-bit type: Swift imports those exactly, and misreads many macros.
#ifndef CUFFD_ABI_H
#define CUFFD_ABI_H

#include <stdint.h>

// MARK: Requests

enum : uint64_t {
    CUFFD_API_VERSION = 0xAA,
};

/// ioctl request words. UNREGISTER and WAKE carry the direction "read" although the kernel reads their argument.
enum : uint64_t {
    CUFFD_IOC_API = 0xC018AA3F,
    CUFFD_IOC_REGISTER = 0xC020AA00,
    CUFFD_IOC_UNREGISTER = 0x8010AA01,
    CUFFD_IOC_WAKE = 0x8010AA02,
    CUFFD_IOC_COPY = 0xC028AA03,
    CUFFD_IOC_ZEROPAGE = 0xC020AA04,
    CUFFD_IOC_MOVE = 0xC028AA05,
    CUFFD_IOC_WRITEPROTECT = 0xC018AA06,
    CUFFD_IOC_CONTINUE = 0xC020AA07,
    CUFFD_IOC_POISON = 0xC020AA08,
    CUFFD_IOC_RWPROTECT = 0xC018AA09,
    CUFFD_IOC_SET_MODE = 0x4010AA0A,
    /// On /dev/userfaultfd; its argument is the flags, by value.
    CUFFD_IOC_NEW = 0x0000AA00,
    /// On /proc/PID/pagemap.
    CUFFD_IOC_PAGEMAP_SCAN = 0xC0606610,
};

/// Bit numbers in the masks of ioctls that API and REGISTER answer.
enum : uint64_t {
    CUFFD_NR_REGISTER = 0x00,
    CUFFD_NR_UNREGISTER = 0x01,
    CUFFD_NR_WAKE = 0x02,
    CUFFD_NR_COPY = 0x03,
    CUFFD_NR_ZEROPAGE = 0x04,
    CUFFD_NR_MOVE = 0x05,
    CUFFD_NR_WRITEPROTECT = 0x06,
    CUFFD_NR_CONTINUE = 0x07,
    CUFFD_NR_POISON = 0x08,
    CUFFD_NR_RWPROTECT = 0x09,
    CUFFD_NR_SET_MODE = 0x0A,
    CUFFD_NR_API = 0x3F,
};

// MARK: Flags

/// A flag of userfaultfd(2) and of CUFFD_IOC_NEW, beside O_CLOEXEC and O_NONBLOCK.
enum : uint64_t {
    CUFFD_USER_MODE_ONLY = 1,
};

enum : uint64_t {
    CUFFD_FEATURE_PAGEFAULT_FLAG_WP = UINT64_C(1) << 0,
    CUFFD_FEATURE_EVENT_FORK = UINT64_C(1) << 1,
    CUFFD_FEATURE_EVENT_REMAP = UINT64_C(1) << 2,
    CUFFD_FEATURE_EVENT_REMOVE = UINT64_C(1) << 3,
    CUFFD_FEATURE_MISSING_HUGETLBFS = UINT64_C(1) << 4,
    CUFFD_FEATURE_MISSING_SHMEM = UINT64_C(1) << 5,
    CUFFD_FEATURE_EVENT_UNMAP = UINT64_C(1) << 6,
    CUFFD_FEATURE_SIGBUS = UINT64_C(1) << 7,
    CUFFD_FEATURE_THREAD_ID = UINT64_C(1) << 8,
    CUFFD_FEATURE_MINOR_HUGETLBFS = UINT64_C(1) << 9,
    CUFFD_FEATURE_MINOR_SHMEM = UINT64_C(1) << 10,
    CUFFD_FEATURE_EXACT_ADDRESS = UINT64_C(1) << 11,
    CUFFD_FEATURE_WP_HUGETLBFS_SHMEM = UINT64_C(1) << 12,
    CUFFD_FEATURE_WP_UNPOPULATED = UINT64_C(1) << 13,
    CUFFD_FEATURE_POISON = UINT64_C(1) << 14,
    CUFFD_FEATURE_WP_ASYNC = UINT64_C(1) << 15,
    CUFFD_FEATURE_MOVE = UINT64_C(1) << 16,
    CUFFD_FEATURE_RWP = UINT64_C(1) << 17,
    CUFFD_FEATURE_RWP_ASYNC = UINT64_C(1) << 18,
    /// Never negotiated: the kernel shows it in fdinfo once a descriptor is initialised.
    CUFFD_FEATURE_INITIALIZED = UINT64_C(1) << 31,
};

enum : uint64_t {
    CUFFD_REGISTER_MODE_MISSING = 1 << 0,
    CUFFD_REGISTER_MODE_WP = 1 << 1,
    CUFFD_REGISTER_MODE_MINOR = 1 << 2,
    CUFFD_REGISTER_MODE_RWP = 1 << 3,
};

/// Flags of the calls that resolve faults. DONTWAKE is bit 1 for the two protecting calls and bit 0 elsewhere.
enum : uint64_t {
    CUFFD_COPY_MODE_DONTWAKE = 1 << 0,
    CUFFD_COPY_MODE_WP = 1 << 1,
    CUFFD_ZEROPAGE_MODE_DONTWAKE = 1 << 0,
    CUFFD_MOVE_MODE_DONTWAKE = 1 << 0,
    CUFFD_MOVE_MODE_ALLOW_SRC_HOLES = 1 << 1,
    CUFFD_CONTINUE_MODE_DONTWAKE = 1 << 0,
    CUFFD_CONTINUE_MODE_WP = 1 << 1,
    CUFFD_POISON_MODE_DONTWAKE = 1 << 0,
    CUFFD_WRITEPROTECT_MODE_WP = 1 << 0,
    CUFFD_WRITEPROTECT_MODE_DONTWAKE = 1 << 1,
    CUFFD_RWPROTECT_MODE_RWP = 1 << 0,
    CUFFD_RWPROTECT_MODE_DONTWAKE = 1 << 1,
};

// MARK: Messages

enum : uint64_t {
    CUFFD_EVENT_PAGEFAULT = 0x12,
    CUFFD_EVENT_FORK = 0x13,
    CUFFD_EVENT_REMAP = 0x14,
    CUFFD_EVENT_REMOVE = 0x15,
    CUFFD_EVENT_UNMAP = 0x16,
};

enum : uint64_t {
    CUFFD_PAGEFAULT_FLAG_WRITE = 1 << 0,
    CUFFD_PAGEFAULT_FLAG_WP = 1 << 1,
    CUFFD_PAGEFAULT_FLAG_MINOR = 1 << 2,
    CUFFD_PAGEFAULT_FLAG_RWP = 1 << 3,
};

/// What read(2) answers: 32 bytes each.
struct cuffd_msg {
    uint8_t event;
    uint8_t reserved1;
    uint16_t reserved2;
    uint32_t reserved3;
    union {
        struct {
            uint64_t flags;
            uint64_t address;
            /// Thread id of the faulting thread when CUFFD_FEATURE_THREAD_ID is enabled, else 0.
            uint32_t ptid;
        } pagefault;
        struct {
            /// The child's userfaultfd, installed in the reader's descriptor table.
            uint32_t ufd;
        } fork;
        struct {
            uint64_t from;
            uint64_t to;
            uint64_t len;
        } remap;
        /// REMOVE and UNMAP; end is exclusive.
        struct {
            uint64_t start;
            uint64_t end;
        } remove;
        uint64_t words[3];
    } arg;
};

// MARK: Arguments

struct cuffd_api {
    uint64_t api;
    uint64_t features;
    uint64_t ioctls;
};

struct cuffd_range {
    uint64_t start;
    uint64_t len;
};

struct cuffd_register {
    struct cuffd_range range;
    uint64_t mode;
    uint64_t ioctls;
};

struct cuffd_copy {
    uint64_t dst;
    uint64_t src;
    uint64_t len;
    uint64_t mode;
    int64_t copy;
};

struct cuffd_zeropage {
    struct cuffd_range range;
    uint64_t mode;
    int64_t zeropage;
};

struct cuffd_move {
    uint64_t dst;
    uint64_t src;
    uint64_t len;
    uint64_t mode;
    int64_t move;
};

struct cuffd_writeprotect {
    struct cuffd_range range;
    uint64_t mode;
};

struct cuffd_continue {
    struct cuffd_range range;
    uint64_t mode;
    int64_t mapped;
};

struct cuffd_poison {
    struct cuffd_range range;
    uint64_t mode;
    int64_t updated;
};

struct cuffd_rwprotect {
    struct cuffd_range range;
    uint64_t mode;
};

struct cuffd_set_mode {
    uint64_t enable;
    uint64_t disable;
};

// MARK: PAGEMAP_SCAN

enum : uint64_t {
    CUFFD_PM_SCAN_WP_MATCHING = 1 << 0,
    CUFFD_PM_SCAN_CHECK_WPASYNC = 1 << 1,
};

enum : uint64_t {
    CUFFD_PAGE_IS_WPALLOWED = 1 << 0,
    CUFFD_PAGE_IS_WRITTEN = 1 << 1,
    CUFFD_PAGE_IS_FILE = 1 << 2,
    CUFFD_PAGE_IS_PRESENT = 1 << 3,
    CUFFD_PAGE_IS_SWAPPED = 1 << 4,
    CUFFD_PAGE_IS_PFNZERO = 1 << 5,
    CUFFD_PAGE_IS_HUGE = 1 << 6,
    CUFFD_PAGE_IS_SOFT_DIRTY = 1 << 7,
    CUFFD_PAGE_IS_GUARD = 1 << 8,
    CUFFD_PAGE_IS_ACCESSED = 1 << 9,
};

struct cuffd_page_region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};

struct cuffd_pm_scan_arg {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t vec;
    uint64_t vec_len;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
};

#endif
