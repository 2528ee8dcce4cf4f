// A monitor of one virtual machine whose memory uffd-pager serves, as Firecracker is one:
//
//   monitor code           prints what the memory must begin with
//   monitor probe          runs a guest in memory of its own; 77 with the reason if the kernel makes none
//   monitor SOCKET PAGES   hands so much memory over, and does what the lines of standard input say:
//
//   read FIRST COUNT         the guest reads pages; a line with the sum of each, as soon as it has it
//   write FIRST COUNT VALUE  the guest writes the first word of pages: VALUE, VALUE + 1, ...
//   see FIRST COUNT          the monitor reads pages itself
//   drop FIRST COUNT         the balloon takes pages
//
// After each command comes the line "done". At the end of its input it ends, in order. Numbers are decimal. If the guest
// cannot go on it says why and ends with 1; SIGBUS ends it.
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "CTSGuest.h"

static char *map(size_t bytes) {
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) err(1, "mmap");
    return memory;
}

// Opened and handed over as Firecracker does it. Both descriptors stay open until the end of the process.
static void hand_over(const char *path, char *memory, size_t bytes) {
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (uffd < 0) err(1, "userfaultfd");
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
    if (ioctl(uffd, UFFDIO_API, &api) != 0) err(1, "UFFDIO_API");
    struct uffdio_register registration = {
        .range = {(uintptr_t)memory, bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(uffd, UFFDIO_REGISTER, &registration) != 0) err(1, "UFFDIO_REGISTER");

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) errx(1, "%s: too long", path);
    strcpy(address.sun_path, path);
    int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof address) != 0) err(1, "%s", path);
    char text[256];
    int length = snprintf(text, sizeof text,
                          "[{\"base_host_virt_addr\":%" PRIuPTR ",\"size\":%zu,\"offset\":0,\"page_size\":%d}]",
                          (uintptr_t)memory, bytes, CTS_GUEST_PAGE);
    struct iovec part = {text, (size_t)length};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof uffd)];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof uffd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), &uffd, sizeof uffd);
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    if (sendmsg(connection, &message, MSG_NOSIGNAL) != length) err(1, "sendmsg");
}

static void stopped(int result) {
    if (result < 0) errx(1, "the guest cannot go on: %s", strerror(-result));
}

static void obey(struct cts_guest *guest, char *memory, size_t pages, const char *line) {
    char command[8];
    uint32_t first, count, value = 0, sum;
    int fields = sscanf(line, "%7s %" SCNu32 " %" SCNu32 " %" SCNu32, command, &first, &count, &value);
    if (fields < 3 || count == 0 || first >= pages || count > pages - first) errx(64, "not understood: %s", line);
    char *start = memory + (size_t)first * CTS_GUEST_PAGE;
    if (strcmp(command, "read") == 0 || strcmp(command, "write") == 0) {
        stopped(*command == 'r' ? cts_guest_read(guest, first, count) : cts_guest_write(guest, first, count, value));
        int result;
        while ((result = cts_guest_next(guest, &sum)) > 0) printf("%" PRIu32 "\n", sum);
        stopped(result);
    } else if (strcmp(command, "see") == 0) {
        for (; count > 0; count--, start += CTS_GUEST_PAGE) printf("%" PRIu32 "\n", cts_guest_sum(start));
    } else if (strcmp(command, "drop") == 0) {
        if (madvise(start, (size_t)count * CTS_GUEST_PAGE, MADV_DONTNEED) != 0) err(1, "madvise");
    } else {
        errx(64, "not understood: %s", line);
    }
    puts("done");
}

static int probe(void) {
    size_t count;
    const void *code = cts_guest_code(&count);
    char *memory = map(CTS_GUEST_PAGE);
    memcpy(memory, code, count);
    struct cts_guest guest;
    uint32_t sum = 0;
    int result = cts_guest_open(&guest, memory, CTS_GUEST_PAGE);
    if (result < 0) errx(77, "needs KVM: %s", strerror(-result));
    stopped(cts_guest_read(&guest, 0, 1));
    stopped(result = cts_guest_next(&guest, &sum));
    if (result != 1 || sum != cts_guest_sum(memory)) errx(1, "the guest reads something else");
    return 0;
}

int main(int count, char **arguments) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count == 2 && strcmp(arguments[1], "probe") == 0) return probe();
    if (count == 2 && strcmp(arguments[1], "code") == 0) {
        size_t bytes;
        const void *code = cts_guest_code(&bytes);
        return fwrite(code, 1, bytes, stdout) == bytes && fflush(stdout) == 0 ? 0 : 1;
    }
    size_t pages = count == 3 ? strtoul(arguments[2], NULL, 10) : 0;
    if (pages == 0) errx(64, "usage: %s code | probe | SOCKET PAGES", arguments[0]);
    char *memory = map(pages * CTS_GUEST_PAGE), line[128];
    hand_over(arguments[1], memory, pages * CTS_GUEST_PAGE);
    struct cts_guest guest;
    stopped(cts_guest_open(&guest, memory, pages * CTS_GUEST_PAGE));
    while (fgets(line, sizeof line, stdin) != NULL) obey(&guest, memory, pages, line);
    cts_guest_close(&guest);
    return fflush(stdout) == 0 ? 0 : 1;
}
