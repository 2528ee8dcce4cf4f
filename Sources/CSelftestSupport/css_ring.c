#define _GNU_SOURCE
#include "css_ring.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static void *map(int ring, size_t size, off_t offset)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, ring, offset);
    return memory == MAP_FAILED ? NULL : memory;
}

int css_ring_open(struct css_ring *ring)
{
    struct io_uring_params parameters = {0};
    int descriptor = (int)syscall(SYS_io_uring_setup, 1, &parameters);
    if (descriptor < 0)
        return -errno;
    *ring = (struct css_ring){
        .descriptor = descriptor,
        .queue_size = parameters.sq_off.array + parameters.sq_entries * sizeof(uint32_t),
        .completed_size = parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe),
        .entries_size = parameters.sq_entries * sizeof(struct io_uring_sqe),
        .array = parameters.sq_off.array,
        .tail = parameters.sq_off.tail,
        .completions = parameters.cq_off.cqes,
        .completion_head = parameters.cq_off.head,
        .completion_mask = parameters.cq_off.ring_mask,
    };
    ring->queue = map(descriptor, ring->queue_size, IORING_OFF_SQ_RING);
    ring->completed = map(descriptor, ring->completed_size, IORING_OFF_CQ_RING);
    ring->entries = map(descriptor, ring->entries_size, IORING_OFF_SQES);
    if (ring->queue && ring->completed && ring->entries)
        return 0;
    css_ring_close(ring);
    return -ENOMEM;
}

void css_ring_close(struct css_ring *ring)
{
    if (ring->queue)
        munmap(ring->queue, ring->queue_size);
    if (ring->completed)
        munmap(ring->completed, ring->completed_size);
    if (ring->entries)
        munmap(ring->entries, ring->entries_size);
    close(ring->descriptor);
}

static uint32_t *word(void *memory, uint32_t offset)
{
    return (uint32_t *)((char *)memory + offset);
}

ssize_t css_ring_read(struct css_ring *ring, int source, uintptr_t address, size_t count, bool is_registered)
{
    // One entry at a time, so that it always is the first.
    *(struct io_uring_sqe *)ring->entries = (struct io_uring_sqe){
        .opcode = is_registered ? IORING_OP_READ_FIXED : IORING_OP_READ,
        .fd = source,
        .addr = address,
        .len = (uint32_t)count,
    };
    *word(ring->queue, ring->array) = 0;
    uint32_t *tail = word(ring->queue, ring->tail);
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring->descriptor, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        return -errno;
    uint32_t *head = word(ring->completed, ring->completion_head);
    uint32_t mask = *word(ring->completed, ring->completion_mask);
    struct io_uring_cqe *completions = (struct io_uring_cqe *)((char *)ring->completed + ring->completions);
    ssize_t answer = completions[*head & mask].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return answer;
}
