#define _GNU_SOURCE
#include "CBenchBaseline.h"
#include "cbb_abi.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int cbb_soft_dirty_clear(void) {
    int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (file < 0) return -errno;
    int answer = write(file, "4", 1) == 1 ? 0 : -errno;
    close(file);
    return answer;
}

int64_t cbb_soft_dirty_count(int pagemap, uint64_t base, size_t pages) {
    uint64_t words[512];
    int64_t dirty = 0;
    for (size_t done = 0; done < pages;) {
        size_t count = pages - done < 512 ? pages - done : 512;
        ssize_t bytes = pread(pagemap, words, count * 8, (off_t)((base / 4096 + done) * 8));
        if (bytes <= 0) return -errno;
        for (size_t i = 0; i < (size_t)bytes / 8; i++) dirty += words[i] >> 55 & 1;
        done += (size_t)bytes / 8;
    }
    return dirty;
}

int64_t cbb_scan_written(int pagemap, uint64_t base, uint64_t bytes, size_t page_size) {
    struct cuffd_page_region regions[1024];
    struct cuffd_pm_scan_arg argument = {
        .size = sizeof argument,
        .flags = CUFFD_PM_SCAN_WP_MATCHING | CUFFD_PM_SCAN_CHECK_WPASYNC,
        .start = base,
        .end = base + bytes,
        .vec = (uint64_t)regions,
        .vec_len = 1024,
        .category_mask = CUFFD_PAGE_IS_WRITTEN,
        .return_mask = CUFFD_PAGE_IS_WRITTEN,
    };
    int64_t dirty = 0;
    while (argument.start < argument.end) {
        int count = ioctl(pagemap, CUFFD_IOC_PAGEMAP_SCAN, &argument);
        if (count < 0) return -errno;
        for (int i = 0; i < count; i++) dirty += (int64_t)((regions[i].end - regions[i].start) / page_size);
        argument.start = argument.walk_end;
    }
    return dirty;
}

uint64_t cbb_startup(uint64_t base, size_t bytes, size_t page_size) {
    uint64_t start = cbb_now();
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | (int)CUFFD_USER_MODE_ONLY);
    struct cuffd_api api = {.api = CUFFD_API_VERSION};
    struct cuffd_register range = {.range = {base, bytes}, .mode = CUFFD_REGISTER_MODE_MISSING};
    uint64_t reader;
    struct pollfd entry = {.fd = fd, .events = POLLIN};
    struct cuffd_msg message;
    struct cuffd_zeropage zero = {.range = {base, page_size}};
    if (fd < 0 || ioctl(fd, CUFFD_IOC_API, &api) != 0 || ioctl(fd, CUFFD_IOC_REGISTER, &range) != 0
        || cbb_reader_start(&reader, base) != 0 || poll(&entry, 1, 5000) != 1
        || read(fd, &message, sizeof message) != sizeof message || ioctl(fd, CUFFD_IOC_ZEROPAGE, &zero) != 0)
        return 0;
    cbb_reader_join(reader);
    uint64_t time = cbb_now() - start;
    close(fd);
    return time;
}
