// Descriptors: open, close, read, write, and the ways of waiting for them.
#define _GNU_SOURCE
#include "cuffd_answer.h"
#include "cuffd_calls.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

const int CUFFD_O_CLOEXEC = O_CLOEXEC;
const int CUFFD_O_NONBLOCK = O_NONBLOCK;
const int CUFFD_O_RDONLY = O_RDONLY;
const int CUFFD_O_RDWR = O_RDWR;
const int CUFFD_O_CREAT = O_CREAT;
const int CUFFD_O_NOFOLLOW = O_NOFOLLOW;
const int CUFFD_SEEK_SET = SEEK_SET;
const int CUFFD_SEEK_CUR = SEEK_CUR;
const int CUFFD_SEEK_END = SEEK_END;
const int CUFFD_SEEK_DATA = SEEK_DATA;
const int CUFFD_SEEK_HOLE = SEEK_HOLE;
const short CUFFD_POLLIN = POLLIN;
const short CUFFD_POLLOUT = POLLOUT;
const short CUFFD_POLLERR = POLLERR;
const short CUFFD_POLLNVAL = POLLNVAL;

int cuffd_open(const char *path, int flags) { return CUFFD_ANSWER(open(path, flags, 0600)); }

int cuffd_rename(const char *from, const char *to) { return CUFFD_ANSWER(rename(from, to)); }

int cuffd_close(int fd) { return CUFFD_ANSWER(close(fd)); }

int cuffd_dup(int fd) { return CUFFD_ANSWER(fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

int cuffd_status_flags(int fd) { return CUFFD_ANSWER(fcntl(fd, F_GETFL)); }

int cuffd_set_status_flags(int fd, int flags) { return CUFFD_ANSWER(fcntl(fd, F_SETFL, flags)); }

ssize_t cuffd_pread(int fd, void *bytes, size_t count, int64_t offset) {
    return CUFFD_ANSWER(pread(fd, bytes, count, offset));
}

ssize_t cuffd_pread_now(int fd, void *bytes, size_t count, int64_t offset) {
    struct iovec room = {bytes, count};
    return CUFFD_ANSWER(preadv2(fd, &room, 1, offset, RWF_NOWAIT));
}

ssize_t cuffd_pwrite(int fd, const void *bytes, size_t count, int64_t offset) {
    return CUFFD_ANSWER(pwrite(fd, bytes, count, offset));
}

int cuffd_fsync(int fd) { return CUFFD_ANSWER(fsync(fd)); }

int64_t cuffd_seek(int fd, int64_t offset, int whence) { return CUFFD_ANSWER(lseek(fd, offset, whence)); }

int cuffd_poll(int fd, short events, int milliseconds) {
    struct pollfd entry = {.fd = fd, .events = events};
    int ready = CUFFD_ANSWER(poll(&entry, 1, milliseconds));
    return ready > 0 ? entry.revents : ready;
}

_Static_assert(sizeof(struct cuffd_poll_entry) == sizeof(struct pollfd), "an entry is a struct pollfd");
_Static_assert(offsetof(struct cuffd_poll_entry, events) == offsetof(struct pollfd, events), "events are where they are");
_Static_assert(offsetof(struct cuffd_poll_entry, ready) == offsetof(struct pollfd, revents), "so is the answer");

int cuffd_poll_entries(struct cuffd_poll_entry *entries, int count, int milliseconds) {
    return CUFFD_ANSWER(poll((struct pollfd *)(void *)entries, (nfds_t)count, milliseconds));
}

int cuffd_bytes_readable(int fd) {
    int count = 0;
    int answer = CUFFD_ANSWER(ioctl(fd, FIONREAD, &count));
    return answer < 0 ? answer : count;
}

int cuffd_eventfd(void) { return CUFFD_ANSWER(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

int cuffd_eventfd_signal(int fd) { return CUFFD_ANSWER(eventfd_write(fd, 1)); }

int cuffd_eventfd_drain(int fd) {
    eventfd_t count;
    return CUFFD_ANSWER(eventfd_read(fd, &count));
}

int cuffd_epoll_create(void) { return CUFFD_ANSWER(epoll_create1(EPOLL_CLOEXEC)); }

int cuffd_epoll_add(int epoll, int fd, uint64_t token, int edge_triggered) {
    struct epoll_event event = {.events = EPOLLIN | (edge_triggered ? EPOLLET : 0), .data.u64 = token};
    return CUFFD_ANSWER(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
}

int cuffd_epoll_delete(int epoll, int fd) { return CUFFD_ANSWER(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL)); }

int cuffd_epoll_wait(int epoll, uint64_t *tokens, uint32_t *events, int count, int milliseconds) {
    struct epoll_event ready[64];
    int capacity = count < 64 ? count : 64;
    int answer = CUFFD_ANSWER(epoll_wait(epoll, ready, capacity, milliseconds));
    for (int i = 0; i < answer; i++) {
        tokens[i] = ready[i].data.u64;
        events[i] = ready[i].events;
    }
    return answer;
}
