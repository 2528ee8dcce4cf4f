// Hand-written C twins of what uffd-bench measures, and the parts that every variant shares.
//
// Nothing here uses the library: descriptors and addresses come in as numbers, so that the C side is what an expert
// would write against the kernel alone. Times are nanoseconds of CLOCK_MONOTONIC.
#ifndef CBENCHBASELINE_H
#define CBENCHBASELINE_H

#include <stddef.h>
#include <stdint.h>

// MARK: Shared by all variants (cbb_touch.c)

uint64_t cbb_now(void);

/// Touches one byte of each page in the order given, or in sequence where `order` is NULL; a write where `writes`.
/// `latencies` gets the time of each touch, or is NULL.
void cbb_touch(
    uint64_t base, size_t pages, size_t page_size, const uint32_t *order, int writes, uint32_t *latencies);

/// Reads every cache line, so that memory is really read and not only mapped; answers a checksum.
uint64_t cbb_scan(uint64_t base, size_t bytes);

/// A thread that reads one byte at an address and ends. 0 or an error number.
int cbb_reader_start(uint64_t *thread, uint64_t address);
void cbb_reader_join(uint64_t thread);

/// Gives memory back to the kernel that the allocator only keeps.
void cbb_trim(void);

// MARK: Where threads run, and when they end (cbb_threads.c)

/// The processors that the calling thread may run on, a bit for each.
void cbb_get_affinity(uint64_t *mask, size_t words);
/// Keeps the calling thread, and the threads that it starts, on these processors.
void cbb_set_affinity(const uint64_t *mask, size_t words);

/// A descriptor that becomes readable when it is signalled, and stays so.
int cbb_stop_create(void);
void cbb_stop_signal(int stop);

// MARK: Threads that touch memory together (cbb_team.c)

struct cbb_team;

/// Threads that wait at a barrier, each kept on its processor.
struct cbb_team *cbb_team_create(size_t count, const int *processors);

/// What each thread writes to.
struct cbb_team_work {
    /// Where the first one's part begins.
    uint64_t base;
    /// Bytes from one part to the next.
    uint64_t part;
    /// Pages that each writes to, in the order given, or in sequence where `order` is NULL.
    size_t pages;
    size_t page_size;
    const uint32_t *order;
};

/// All of them write to their own part. Returns the time from the first one's begin to the last one's end: neither their
/// making nor their waking counts.
uint64_t cbb_team_touch(struct cbb_team *team, struct cbb_team_work work);
void cbb_team_destroy(struct cbb_team *team);

// MARK: ioctls in a loop (cbb_fill.c)

enum cbb_call : uint32_t {
    cbb_copy,
    cbb_zeropage,
    cbb_continue,
    cbb_move,
    cbb_poison,
    cbb_writeprotect,
    cbb_rwprotect,
};

/// Makes one call after another over `total` bytes, `chunk` bytes each. Answers the time, or 0 where a call failed.
uint64_t cbb_fill(int fd, enum cbb_call call, uint64_t destination, uint64_t source, uint64_t total, uint64_t chunk);

/// The time of copying `total` bytes, page by page.
uint64_t cbb_memcpy(uint64_t destination, uint64_t source, uint64_t total, size_t page_size);

// MARK: A fault handler (cbb_handler.c)

enum cbb_waiting : uint32_t {
    cbb_wait_poll,
    cbb_wait_block,
    cbb_wait_spin,
    /// Spins for `spin_limit` nanoseconds, then polls.
    cbb_wait_adaptive,
};

/// One handler thread's work. It ends when `stop` is readable (poll, adaptive), `*stopped` is set (spin), or a page
/// outside the range faults (block).
struct cbb_handler {
    int fd;
    int stop;
    const uint32_t *stopped;
    enum cbb_waiting waiting;
    enum cbb_call call;
    /// Messages for one read: 1 to 64.
    uint32_t batch;
    uint64_t base;
    uint64_t length;
    /// Where the pages come from, for COPY.
    uint64_t source;
    uint64_t page_size;
    /// Bytes to fill for one fault, from the faulting page on; at least a page.
    uint64_t window;
    uint64_t spin_limit;
    /// Out: faults that were resolved.
    uint64_t faults;
};

/// Serves until it is told to stop. 0, or -errno of the call that failed.
int cbb_serve(struct cbb_handler *handler);

/// Serves several descriptors in one thread, by epoll, until `stop` is readable. 0, or -errno of the call that failed.
/// Of each handler, the descriptor, the call, the memory and the batch count.
int cbb_serve_many(struct cbb_handler *handlers, size_t count, int stop);

// MARK: Without a handler thread (cbb_signal.c)

/// How the faults of memory are resolved that a SIGBUS-mode userfaultfd has.
struct cbb_signal_request {
    int fd;
    enum cbb_call call;
    uint64_t base;
    uint64_t length;
    /// Where the pages come from, for COPY.
    uint64_t source;
    uint64_t page_size;
    /// Bytes to fill for one fault, from the faulting page on; at least a page.
    uint64_t window;
};

/// Handles SIGBUS in the thread that faults, until cbb_signal_stop.
void cbb_signal_start(const struct cbb_signal_request *request);
void cbb_signal_stop(void);

/// Touches every page of memory that is protected from all access: the handler of SIGSEGV makes a page accessible and
/// copies its content there. Answers the time.
uint64_t cbb_touch_mprotect(uint64_t base, size_t pages, size_t page_size, uint64_t source);

/// Makes a range read-only and writes to every page; the handler of SIGSEGV makes it writable and notes it.
/// Answers the time of both; `*dirty` gets the number of pages noted.
uint64_t cbb_touch_sigsegv(uint64_t base, size_t pages, size_t page_size, uint64_t *dirty);

// MARK: Dirty pages (cbb_dirty.c)

/// Resets the soft-dirty bits of this process. 0 or -errno.
int cbb_soft_dirty_clear(void);
/// Counts the soft-dirty pages of a range. The count, or -errno.
int64_t cbb_soft_dirty_count(int pagemap, uint64_t base, size_t pages);
/// Takes the written pages of a range by PAGEMAP_SCAN and protects them anew. The count, or -errno.
int64_t cbb_scan_written(int pagemap, uint64_t base, uint64_t bytes, size_t page_size);

/// Opens, negotiates, registers, and resolves the fault of a page that another thread touches. Answers the time, or 0.
uint64_t cbb_startup(uint64_t base, size_t bytes, size_t page_size);

#endif
