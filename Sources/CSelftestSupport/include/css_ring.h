#ifndef CSS_RING_H
#define CSS_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

// An io_uring of one entry, for one call at a time.
struct css_ring {
    int descriptor;
    void *queue, *completed, *entries;
    size_t queue_size, completed_size, entries_size;
    uint32_t array, tail, completions, completion_head, completion_mask;
};

// Sets up a ring: 0 or -errno.
int css_ring_open(struct css_ring *ring);
// Tears it down, with what is registered with it.
void css_ring_close(struct css_ring *ring);
// Reads from `source` into memory, and waits for that: the number of bytes, or -errno. `is_registered` says that the
// memory is the buffer that was registered with the ring, which the kernel then does not look up.
ssize_t css_ring_read(struct css_ring *ring, int source, uintptr_t address, size_t count, bool is_registered);

#endif
