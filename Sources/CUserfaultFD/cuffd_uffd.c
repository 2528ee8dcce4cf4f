// userfaultfd(2), /dev/userfaultfd and every UFFDIO_*.
#define _GNU_SOURCE
#include "cuffd_answer.h"
#include "cuffd_calls.h"

#include <fcntl.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int cuffd_userfaultfd(int flags) { return (int)CUFFD_ANSWER(syscall(SYS_userfaultfd, flags)); }

int cuffd_device_open(void) { return CUFFD_ANSWER(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC)); }

int cuffd_device_new(int device, int flags) { return CUFFD_ANSWER(ioctl(device, CUFFD_IOC_NEW, (unsigned long)flags)); }

int cuffd_ioctl(int fd, uint64_t request, void *argument) { return CUFFD_ANSWER(ioctl(fd, request, argument)); }

int cuffd_api(int fd, uint64_t features, uint64_t *supported, uint64_t *ioctls) {
    struct cuffd_api argument = {.api = CUFFD_API_VERSION, .features = features};
    int answer = CUFFD_ANSWER(ioctl(fd, CUFFD_IOC_API, &argument));
    *supported = answer < 0 ? 0 : argument.features;
    *ioctls = answer < 0 ? 0 : argument.ioctls;
    return answer;
}

int cuffd_register(int fd, uint64_t start, uint64_t len, uint64_t mode, uint64_t *ioctls) {
    struct cuffd_register argument = {.range = {start, len}, .mode = mode};
    int answer = CUFFD_ANSWER(ioctl(fd, CUFFD_IOC_REGISTER, &argument));
    *ioctls = argument.ioctls;
    return answer;
}

int cuffd_unregister(int fd, uint64_t start, uint64_t len) {
    struct cuffd_range argument = {start, len};
    return CUFFD_ANSWER(ioctl(fd, CUFFD_IOC_UNREGISTER, &argument));
}

int cuffd_wake(int fd, uint64_t start, uint64_t len) {
    struct cuffd_range argument = {start, len};
    return CUFFD_ANSWER(ioctl(fd, CUFFD_IOC_WAKE, &argument));
}

int cuffd_copy(int fd, uint64_t dst, uint64_t src, uint64_t len, uint64_t mode, int64_t *copied) {
    struct cuffd_copy argument = {.dst = dst, .src = src, .len = len, .mode = mode};
    int answer = CUFFD_ANSWER(ioctl(fd, CUFFD_IOC_COPY, &argument));
    *copied = argument.copy;
    return answer;
}

int cuffd_zeropage(int fd, uint64_t start, uint64_t len, uint64_t mode, int64_t *zeroed) {
    struct cuffd_zeropage argument = {.range = {start, len}, .mode = mode};
    int answer = CUFFD_ANSWER(ioctl(fd, CUFFD_IOC_ZEROPAGE, &argument));
    *zeroed = argument.zeropage;
    return answer;
}

int cuffd_move(int fd, uint64_t dst, uint64_t src, uint64_t len, uint64_t mode, int64_t *moved) {
    struct cuffd_move argument = {.dst = dst, .src = src, .len = len, .mode = mode};
    int answer = CUFFD_ANSWER(ioctl(fd, CUFFD_IOC_MOVE, &argument));
    *moved = argument.move;
    return answer;
}

int cuffd_writeprotect(int fd, uint64_t start, uint64_t len, uint64_t mode) {
    struct cuffd_writeprotect argument = {.range = {start, len}, .mode = mode};
    return CUFFD_ANSWER(ioctl(fd, CUFFD_IOC_WRITEPROTECT, &argument));
}

int cuffd_continue(int fd, uint64_t start, uint64_t len, uint64_t mode, int64_t *mapped) {
    struct cuffd_continue argument = {.range = {start, len}, .mode = mode};
    int answer = CUFFD_ANSWER(ioctl(fd, CUFFD_IOC_CONTINUE, &argument));
    *mapped = argument.mapped;
    return answer;
}

int cuffd_poison(int fd, uint64_t start, uint64_t len, uint64_t mode, int64_t *updated) {
    struct cuffd_poison argument = {.range = {start, len}, .mode = mode};
    int answer = CUFFD_ANSWER(ioctl(fd, CUFFD_IOC_POISON, &argument));
    *updated = argument.updated;
    return answer;
}

int cuffd_rwprotect(int fd, uint64_t start, uint64_t len, uint64_t mode) {
    struct cuffd_rwprotect argument = {.range = {start, len}, .mode = mode};
    return CUFFD_ANSWER(ioctl(fd, CUFFD_IOC_RWPROTECT, &argument));
}

int cuffd_set_mode(int fd, uint64_t enable, uint64_t disable) {
    struct cuffd_set_mode argument = {enable, disable};
    return CUFFD_ANSWER(ioctl(fd, CUFFD_IOC_SET_MODE, &argument));
}

ssize_t cuffd_read_messages(int fd, struct cuffd_msg *messages, size_t count) {
    return CUFFD_ANSWER(read(fd, messages, count * sizeof *messages));
}

ssize_t cuffd_read_messages_now(int fd, struct cuffd_msg *messages, size_t count) {
    struct iovec room = {messages, count * sizeof *messages};
    ssize_t answer = CUFFD_ANSWER(preadv2(fd, &room, 1, -1, RWF_NOWAIT));
    // A filter of system calls may not know the call.
    bool isUnknown = answer == -EOPNOTSUPP || answer == -ENOSYS || answer == -EPERM;
    return isUnknown ? cuffd_read_messages(fd, messages, count) : answer;
}
