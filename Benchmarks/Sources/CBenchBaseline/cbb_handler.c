#include "CBenchBaseline.h"
#include "cbb_abi.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

/// Resolves one fault. 1 where the page is outside the range: the bell that ends a blocking handler.
static inline int resolve(struct cbb_handler *handler, uint64_t address) {
    uint64_t offset = (address & ~(handler->page_size - 1)) - handler->base;
    if (offset >= handler->length) {
        struct cuffd_zeropage bell = {.range = {address & ~UINT64_C(4095), 4096}};
        ioctl(handler->fd, CUFFD_IOC_ZEROPAGE, &bell);
        return 1;
    }
    uint64_t length = handler->length - offset < handler->window ? handler->length - offset : handler->window;
    uint64_t destination = handler->base + offset;
    int answer;
    switch (handler->call) {
    case cbb_copy: {
        struct cuffd_copy argument = {.dst = destination, .src = handler->source + offset, .len = length};
        answer = ioctl(handler->fd, CUFFD_IOC_COPY, &argument);
        break;
    }
    case cbb_continue: {
        struct cuffd_continue argument = {.range = {destination, length}};
        answer = ioctl(handler->fd, CUFFD_IOC_CONTINUE, &argument);
        break;
    }
    case cbb_zeropage: {
        struct cuffd_zeropage argument = {.range = {destination, length}};
        answer = ioctl(handler->fd, CUFFD_IOC_ZEROPAGE, &argument);
        break;
    }
    case cbb_writeprotect: {
        struct cuffd_writeprotect argument = {.range = {destination, handler->page_size}};
        answer = ioctl(handler->fd, CUFFD_IOC_WRITEPROTECT, &argument);
        break;
    }
    default:
        errno = EINVAL;
        answer = -1;
    }
    if (answer != 0) {
        // Somebody else was faster, or a part is there already: the waiters are to look again.
        if (errno != EEXIST && errno != EAGAIN) return -errno;
        struct cuffd_range waiters = {destination, length};
        ioctl(handler->fd, CUFFD_IOC_WAKE, &waiters);
    }
    handler->faults += 1;
    return 0;
}

/// Waits for a message as the handler is told to. 1 where it is to stop.
static inline int wait_for_message(struct cbb_handler *handler) {
    if (handler->waiting == cbb_wait_block) return 0;
    if (handler->waiting == cbb_wait_spin) return __atomic_load_n(handler->stopped, __ATOMIC_ACQUIRE) != 0;
    struct pollfd entries[2] = {{.fd = handler->fd, .events = POLLIN}, {.fd = handler->stop, .events = POLLIN}};
    if (poll(entries, 2, -1) < 0) return errno == EINTR ? 0 : -errno;
    return entries[1].revents != 0;
}

int cbb_serve(struct cbb_handler *handler) {
    struct cuffd_msg messages[64];
    size_t capacity = handler->batch * sizeof messages[0];
    uint64_t idle_since = 0;
    for (;;) {
        if (handler->waiting != cbb_wait_adaptive || idle_since == 1) {
            int stop = wait_for_message(handler);
            if (stop != 0) return stop < 0 ? stop : 0;
            idle_since = 0;
        }
        ssize_t bytes = read(handler->fd, messages, capacity);
        if (bytes < 0) {
            if (errno != EAGAIN && errno != EINTR) return -errno;
            if (handler->waiting == cbb_wait_adaptive) {
                uint64_t now = cbb_now();
                if (idle_since == 0)
                    idle_since = now;
                else if (now - idle_since > handler->spin_limit)
                    idle_since = 1;
            }
            continue;
        }
        idle_since = 0;
        for (size_t i = 0; i < (size_t)bytes / sizeof messages[0]; i++) {
            if (messages[i].event != CUFFD_EVENT_PAGEFAULT) continue;
            int end = resolve(handler, messages[i].arg.pagefault.address);
            if (end != 0) return end < 0 ? end : 0;
        }
    }
}

/// Reads once and resolves. 0, or -errno.
static int serve_ready(struct cbb_handler *handler) {
    struct cuffd_msg messages[64];
    ssize_t bytes = read(handler->fd, messages, handler->batch * sizeof messages[0]);
    if (bytes < 0) return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    for (size_t i = 0; i < (size_t)bytes / sizeof messages[0]; i++) {
        if (messages[i].event != CUFFD_EVENT_PAGEFAULT) continue;
        int end = resolve(handler, messages[i].arg.pagefault.address);
        if (end < 0) return end;
    }
    return 0;
}

int cbb_serve_many(struct cbb_handler *handlers, size_t count, int stop) {
    struct epoll_event ready[64];
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) return -errno;
    // What is ready says whose it is; nobody's is the end.
    struct epoll_event end = {.events = EPOLLIN, .data.ptr = NULL};
    int result = epoll_ctl(epoll, EPOLL_CTL_ADD, stop, &end) == 0 ? 0 : -errno;
    for (size_t i = 0; i < count && result == 0; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &handlers[i]};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, handlers[i].fd, &event) != 0) result = -errno;
    }
    for (int stopped = 0; result == 0 && !stopped;) {
        int found = epoll_wait(epoll, ready, 64, -1);
        if (found < 0 && errno != EINTR) result = -errno;
        for (int i = 0; i < found && result == 0; i++) {
            if (ready[i].data.ptr == NULL)
                stopped = 1;
            else
                result = serve_ready(ready[i].data.ptr);
        }
    }
    close(epoll);
    return result;
}
