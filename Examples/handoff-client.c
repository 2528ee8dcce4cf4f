// Memory whose pages uffd-pager brings when they are touched: cc handoff-client.c && ./a.out SOCKET BYTES
// Prints the memory. This page is all that a monitor needs; the message is described in docs/pagers.md.
#include <endian.h>
#include <err.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

struct region {
    uint64_t address, bytes, offset, page_bytes;
};

struct message {
    char magic[8];
    uint32_t version, flags;
    uint64_t features;
    uint32_t regions, zero;
    struct region region[1];
};

// Hands one region over; ends the program if it is not served. The userfaultfd stays open: if the pager dies, threads that
// touch missing pages wait, where they would read zeros without it.
static void hand_over(const char *path, int uffd, uint64_t features, struct region region) {
    struct message message = {
        .magic = "UFFDHAND", .version = htole32(1), .features = htole64(features), .regions = htole32(1)};
    message.region[0] = (struct region){
        htole64(region.address), htole64(region.bytes), htole64(region.offset), htole64(region.page_bytes)};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {&message, sizeof message};
    struct msghdr header = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.bytes};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    *rights = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(rights), &uffd, sizeof uffd);

    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) errx(1, "%s: too long", path);
    strcpy(address.sun_path, path);
    int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof address) != 0) err(1, "%s", path);
    if (sendmsg(connection, &header, MSG_NOSIGNAL) != (ssize_t)sizeof message) err(1, "sendmsg");

    char reply[16 + (4 << 10)];  // A text has at most 4 KiB.
    size_t count = 0;
    for (;;) {
        ssize_t more = recv(connection, reply + count, sizeof reply - count, 0);
        if (more <= 0) break;
        count += (size_t)more;
    }
    if (count < 16 || memcmp(reply, "UFFDDONE", 8) != 0) errx(1, "no reply");
    uint32_t status;
    memcpy(&status, reply + 8, sizeof status);
    if (status != 0) errx(1, "not served: %.*s", (int)(count - 16), reply + 16);
    close(connection);
}

int main(int count, char **arguments) {
    if (count != 3) errx(64, "usage: %s SOCKET BYTES", arguments[0]);
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = strtoull(arguments[2], NULL, 10), whole = (bytes + page - 1) / page * page;
    char *memory = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) err(1, "mmap");
    // User-mode faults only, which needs no privilege: the memory must be touched before it is given to a system call.
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (uffd < 0) err(1, "userfaultfd");
    // With events of removal, memory that madvise(MADV_DONTNEED) drops is zeros afterwards.
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
    if (ioctl(uffd, UFFDIO_API, &api) != 0) err(1, "UFFDIO_API");
    hand_over(arguments[1], uffd, UFFD_FEATURE_EVENT_REMOVE, (struct region){(uintptr_t)memory, whole, 0, page});
    for (size_t index = 0; index < bytes; index++) putchar(memory[index]);
    return fflush(stdout) == 0 ? 0 : 1;
}
