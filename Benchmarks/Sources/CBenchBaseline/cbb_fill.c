#include "CBenchBaseline.h"
#include "cbb_abi.h"

#include <string.h>
#include <sys/ioctl.h>

/// One call; 0 or -1. Kept whole in one function, as a C program would have it in its loop.
static inline int cbb_call_once(int fd, enum cbb_call call, uint64_t destination, uint64_t source, uint64_t length) {
    switch (call) {
    case cbb_copy: {
        struct cuffd_copy argument = {.dst = destination, .src = source, .len = length};
        return ioctl(fd, CUFFD_IOC_COPY, &argument);
    }
    case cbb_zeropage: {
        struct cuffd_zeropage argument = {.range = {destination, length}};
        return ioctl(fd, CUFFD_IOC_ZEROPAGE, &argument);
    }
    case cbb_continue: {
        struct cuffd_continue argument = {.range = {destination, length}};
        return ioctl(fd, CUFFD_IOC_CONTINUE, &argument);
    }
    case cbb_move: {
        struct cuffd_move argument = {.dst = destination, .src = source, .len = length};
        return ioctl(fd, CUFFD_IOC_MOVE, &argument);
    }
    case cbb_poison: {
        struct cuffd_poison argument = {.range = {destination, length}};
        return ioctl(fd, CUFFD_IOC_POISON, &argument);
    }
    case cbb_writeprotect: {
        struct cuffd_writeprotect argument = {.range = {destination, length}, .mode = CUFFD_WRITEPROTECT_MODE_WP};
        return ioctl(fd, CUFFD_IOC_WRITEPROTECT, &argument);
    }
    case cbb_rwprotect: {
        struct cuffd_rwprotect argument = {.range = {destination, length}, .mode = CUFFD_RWPROTECT_MODE_RWP};
        return ioctl(fd, CUFFD_IOC_RWPROTECT, &argument);
    }
    }
    return -1;
}

uint64_t cbb_fill(int fd, enum cbb_call call, uint64_t destination, uint64_t source, uint64_t total, uint64_t chunk) {
    uint64_t start = cbb_now();
    for (uint64_t offset = 0; offset < total; offset += chunk)
        if (cbb_call_once(fd, call, destination + offset, source + offset, chunk) != 0) return 0;
    return cbb_now() - start;
}

uint64_t cbb_memcpy(uint64_t destination, uint64_t source, uint64_t total, size_t page_size) {
    uint64_t start = cbb_now();
    for (uint64_t offset = 0; offset < total; offset += page_size)
        memcpy((void *)(destination + offset), (const void *)(source + offset), page_size);
    return cbb_now() - start;
}
