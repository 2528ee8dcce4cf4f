#define _GNU_SOURCE
#include "css_pin.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int css_pin_by_io_uring(struct css_ring *ring, uintptr_t address, size_t length)
{
    int error = css_ring_open(ring);
    if (error)
        return error;
    struct iovec buffer = {.iov_base = (void *)address, .iov_len = length};
    if (syscall(SYS_io_uring_register, ring->descriptor, IORING_REGISTER_BUFFERS, &buffer, 1) == 0)
        return 0;
    error = errno;
    css_ring_close(ring);
    return -error;
}

int64_t css_store_by_pin(struct css_ring *ring, uintptr_t address, const void *bytes, size_t length)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return -errno;
    ssize_t count = write(ends[1], bytes, length);
    if (count < 0)
        count = -errno;
    else
        count = css_ring_read(ring, ends[0], address, (size_t)count, true);
    close(ends[0]);
    close(ends[1]);
    return count;
}

int css_unpin_by_io_uring(struct css_ring *ring)
{
    // Closing alone gives the pages up some time later.
    int answer = (int)syscall(SYS_io_uring_register, ring->descriptor, IORING_UNREGISTER_BUFFERS, NULL, 0);
    int error = errno;
    css_ring_close(ring);
    return answer ? -error : 0;
}

// The interface has no public header.
struct pin_longterm_test {
    uint64_t addr;
    uint64_t size;
    uint32_t flags;
};
#define PIN_LONGTERM_TEST_START _IOW('g', 7, struct pin_longterm_test)
#define PIN_LONGTERM_TEST_STOP _IO('g', 8)

int css_pin_by_gup_test(uintptr_t address, size_t length)
{
    int interface = open("/sys/kernel/debug/gup_test", O_RDWR | O_CLOEXEC);
    if (interface < 0)
        return -errno;
    struct pin_longterm_test test = {.addr = address, .size = length};
    if (ioctl(interface, PIN_LONGTERM_TEST_START, &test) == 0)
        return interface;
    int error = errno;
    close(interface);
    return -error;
}

int css_unpin_by_gup_test(int interface)
{
    int answer = ioctl(interface, PIN_LONGTERM_TEST_STOP);
    int error = errno;
    close(interface);
    return answer ? -error : 0;
}

int css_open_direct(const char *directory)
{
    int file = open(directory, O_RDWR | O_TMPFILE | O_DIRECT | O_CLOEXEC, 0600);
    return file < 0 ? -errno : file;
}

int64_t css_write_directly(int file, uintptr_t address, size_t length)
{
    ssize_t count = pwrite(file, (void *)address, length, 0);
    return count < 0 ? -errno : count;
}

int css_hold_page(uintptr_t address)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return -errno;
    struct iovec memory = {.iov_base = (void *)address, .iov_len = 1};
    ssize_t count = vmsplice(ends[1], &memory, 1, 0);
    int error = errno;
    close(ends[1]);
    if (count == 1)
        return ends[0];
    close(ends[0]);
    return -error;
}

int64_t css_splice_byte(uintptr_t address, uint8_t *byte)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
        return -errno;
    struct iovec memory = {.iov_base = (void *)address, .iov_len = 1};
    ssize_t count = vmsplice(ends[1], &memory, 1, 0);
    if (count == 1)
        count = read(ends[0], byte, 1);
    int error = errno;
    close(ends[0]);
    close(ends[1]);
    return count < 0 ? -error : count;
}
