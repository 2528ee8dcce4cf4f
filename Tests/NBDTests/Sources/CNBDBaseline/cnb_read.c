#include "CNBDBaseline.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, USER_MODE_ONLY = 1 };

struct slot {
    char *buffer;
    uint64_t offset;
    int done;
    int error;
};

static int completed(void *user, int *error) {
    struct slot *slot = user;
    slot->error = *error;
    slot->done = 1;
    return 1;
}

static int64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int open_uffd(char *memory, size_t bytes) {
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | USER_MODE_ONLY);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register area = {
        .range = {(uintptr_t)memory, bytes},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
    };
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0 || ioctl(uffd, UFFDIO_REGISTER, &area) != 0) return -errno;
    return uffd;
}

/// Fills what has come, and asks for as many pages more.
static int turn(struct nbd_handle *nbd, int uffd, char *memory, struct slot *slots, int depth, const uint64_t *offsets,
                int64_t count, int64_t *next, int64_t *filled) {
    for (int index = 0; index < depth; index++) {
        struct slot *slot = &slots[index];
        if (slot->done == 1) {
            struct uffdio_copy copy = {
                .dst = (uintptr_t)memory + slot->offset, .src = (uintptr_t)slot->buffer, .len = PAGE};
            if (slot->error != 0) return -slot->error;
            if (ioctl(uffd, UFFDIO_COPY, &copy) != 0) return -errno;
            slot->done = -1;
            ++*filled;
        }
        if (slot->done == -1 && *next < count) {
            slot->offset = offsets[(*next)++];
            slot->done = 0;
            nbd_completion_callback callback = {.callback = completed, .user_data = slot};
            if (nbd_aio_pread(nbd, slot->buffer, PAGE, slot->offset, callback, 0) == -1) return -EIO;
        }
    }
    return 0;
}

// Whoever fills memory has another thread that uses it: the kernel then counts references of descriptors for each call.
static void *use(void *done) {
    pthread_mutex_lock(done);
    pthread_mutex_unlock(done);
    return NULL;
}

int64_t cnb_read_pages(const char *uri, const uint64_t *offsets, int64_t count, int64_t bytes, int depth) {
    char *memory = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    struct slot *slots = calloc((size_t)depth, sizeof *slots);
    struct nbd_handle *nbd = nbd_create();
    int64_t next = 0, filled = 0, start = 0, result = 0;
    pthread_mutex_t done = PTHREAD_MUTEX_INITIALIZER;
    pthread_t user;
    int uffd = open_uffd(memory, (size_t)bytes);
    if (uffd < 0) return uffd;
    nbd_set_pread_initialize(nbd, false);
    nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION);
    if (nbd_connect_uri(nbd, uri) == -1) return -EIO;
    for (int index = 0; index < depth; index++) {
        slots[index].buffer = malloc(PAGE);
        slots[index].done = -1;
    }
    pthread_mutex_lock(&done);
    if (pthread_create(&user, NULL, use, &done) != 0) return -EAGAIN;
    start = now();
    while (filled < count && result == 0) {
        result = turn(nbd, uffd, memory, slots, depth, offsets, count, &next, &filled);
        if (result != 0 || filled == count) break;
        unsigned direction = nbd_aio_get_direction(nbd);
        struct pollfd entry = {.fd = nbd_aio_get_fd(nbd)};
        if (direction & LIBNBD_AIO_DIRECTION_READ) entry.events |= POLLIN;
        if (direction & LIBNBD_AIO_DIRECTION_WRITE) entry.events |= POLLOUT;
        if (poll(&entry, 1, 10000) <= 0) result = -ETIMEDOUT;
        else if (entry.revents & POLLIN) result = nbd_aio_notify_read(nbd) == -1 ? -EIO : 0;
        else if (entry.revents & POLLOUT) result = nbd_aio_notify_write(nbd) == -1 ? -EIO : 0;
        else result = -EIO;
    }
    if (result == 0) result = now() - start;
    pthread_mutex_unlock(&done);
    pthread_join(user, NULL);
    nbd_close(nbd);
    close(uffd);
    munmap(memory, (size_t)bytes);
    for (int index = 0; index < depth; index++) free(slots[index].buffer);
    free(slots);
    return result;
}
