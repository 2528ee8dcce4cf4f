#define _GNU_SOURCE
#include "css_special_memory.h"

#include <errno.h>
#include <linux/aio_abi.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

int css_sysv_segment(uintptr_t *address, size_t size)
{
    int segment = shmget(IPC_PRIVATE, size, IPC_CREAT | 0600);
    if (segment < 0)
        return -errno;
    void *memory = shmat(segment, NULL, 0);
    int error = errno;
    shmctl(segment, IPC_RMID, NULL);
    *address = (uintptr_t)memory;
    return memory == (void *)-1 ? -error : 0;
}

int css_aio_ring(uintptr_t *address)
{
    aio_context_t context = 0;
    if (syscall(SYS_io_setup, 16, &context))
        return -errno;
    *address = (uintptr_t)context;
    return 0;
}

// Headers that are older than the call have no number for it; it is the same on every architecture.
#ifndef SYS_mseal
#define SYS_mseal 462
#endif

int css_seal(uintptr_t address, size_t size)
{
    return syscall(SYS_mseal, address, size, 0UL) ? -errno : 0;
}

int css_heap_pages(uintptr_t *address, size_t size)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t start = (uintptr_t)sbrk((intptr_t)(size + page));
    if (start == (uintptr_t)-1)
        return -errno;
    *address = (start + page - 1) & ~(page - 1);
    return 0;
}

int css_heap_shrink(uintptr_t end, uintptr_t last)
{
    if ((uintptr_t)sbrk(0) - last > (uintptr_t)sysconf(_SC_PAGESIZE))
        return -EBUSY;
    return brk((void *)end) ? -errno : 0;
}
