/*
 * Machines that touch scattered pages of their memory at the same time.
 *
 *   machines pager SOCKET FILE MACHINES PAGES    one server has them all, by the protocol of docs/pagers.md
 *   machines alone SOCKET FILE MACHINES PAGES    each has a handler of its own, in a process of its own
 *   machines waits SOCKET FILE                   one, served at the socket, which touches nothing until its input ends
 *
 * The memory of each is as long as the file, whose pages begin with their numbers from 1 on. Prints, in nanoseconds, how long
 * all machines took together, and the median and the 99th percentile of a touch.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL

static void check(int good, const char *what) {
    if (good) return;
    fprintf(stderr, "machines: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

struct machine {
    char *memory;
    size_t bytes;
    int uffd;
};

static struct machine prepare(size_t bytes) {
    struct machine machine = {.bytes = bytes};
    machine.memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    check(machine.memory != MAP_FAILED, "mmap");
    check(madvise(machine.memory, bytes, MADV_NOHUGEPAGE) == 0, "madvise");
    machine.uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    check(machine.uffd >= 0, "userfaultfd");
    struct uffdio_api api = {.api = UFFD_API};
    check(ioctl(machine.uffd, UFFDIO_API, &api) == 0, "UFFDIO_API");
    struct uffdio_register region = {
        .range = {.start = (uintptr_t)machine.memory, .len = bytes}, .mode = UFFDIO_REGISTER_MODE_MISSING};
    check(ioctl(machine.uffd, UFFDIO_REGISTER, &region) == 0, "UFFDIO_REGISTER");
    return machine;
}

/* Hands the memory over, as docs/pagers.md says, and waits for the answer. */
static void hand_over(const struct machine *machine, const char *path) {
    struct {
        char magic[8];
        uint32_t version, flags;
        uint64_t features;
        uint32_t regions, zero;
        uint64_t address, bytes, offset, page;
    } message = {"UFFDHAND", htole32(1), htole32(1), 0, htole32(1), 0, htole64((uintptr_t)machine->memory),
        htole64(machine->bytes), 0, htole64(PAGE)};
    int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    check(connect(connection, (struct sockaddr *)&address, sizeof address) == 0, path);
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr aligned;
    } control = {0};
    struct iovec bytes = {&message, sizeof message};
    struct msghdr header = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &machine->uffd, sizeof(int));
    check(sendmsg(connection, &header, MSG_NOSIGNAL) == sizeof message, "sendmsg");
    char reply[16];
    check(recv(connection, reply, sizeof reply, MSG_WAITALL) == sizeof reply && reply[8] == 0, "the server's answer");
    close(connection);
}

/* What everybody writes by hand: a page for each message. */
static void handle(const struct machine *machine, int file) {
    static char room[PAGE] __attribute__((aligned(4096)));
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct pollfd state = {.fd = machine->uffd, .events = POLLIN};
    for (;;) {
        check(poll(&state, 1, -1) == 1 || errno == EINTR, "poll");
        struct uffd_msg message;
        if (read(machine->uffd, &message, sizeof message) != sizeof message) continue;
        uint64_t page = message.arg.pagefault.address & ~(PAGE - 1);
        check(pread(file, room, PAGE, (off_t)(page - (uintptr_t)machine->memory)) == PAGE, "pread");
        struct uffdio_copy copy = {.dst = page, .src = (uintptr_t)room, .len = PAGE};
        check(ioctl(machine->uffd, UFFDIO_COPY, &copy) == 0 || errno == EEXIST || errno == ESRCH, "UFFDIO_COPY");
    }
}

/* Touches pages, each another one, in an order that nobody can read ahead of. */
static void touch(const struct machine *machine, size_t pages, uint64_t seed, uint64_t *times) {
    size_t all = machine->bytes / PAGE, stride = all / pages, step = pages / 2 | 1;
    while (pages % step == 0) step += 2;
    for (size_t index = 0; index < pages; index++) {
        seed = seed * 6364136223846793005 + 1442695040888963407;
        size_t page = index * step % pages * stride + (seed >> 33) % stride;
        uint64_t start = now();
        uint64_t found = *(volatile uint64_t *)(machine->memory + page * PAGE);
        times[index] = now() - start;
        if (found != page + 1) {
            fprintf(stderr, "machines: page %zu begins with %llu\n", page, (unsigned long long)found);
            _exit(2);
        }
    }
}

static int compare(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return a < b ? -1 : a > b;
}

int main(int count, char **arguments) {
    check(count >= 4, "machines pager|alone|waits SOCKET FILE MACHINES PAGES");
    int file = open(arguments[3], O_RDONLY | O_CLOEXEC);
    struct stat status;
    check(file >= 0 && fstat(file, &status) == 0, arguments[3]);
    size_t bytes = (size_t)status.st_size;
    if (strcmp(arguments[1], "waits") == 0) {
        struct machine machine = prepare(bytes);
        hand_over(&machine, arguments[2]);
        check(write(STDOUT_FILENO, "served\n", 7) == 7, "write");
        char byte;
        while (read(STDIN_FILENO, &byte, 1) > 0) {}
        return 0;
    }
    int isAlone = strcmp(arguments[1], "alone") == 0;
    check(count == 6, "machines pager|alone SOCKET FILE MACHINES PAGES");
    size_t machines = strtoul(arguments[4], NULL, 10), pages = strtoul(arguments[5], NULL, 10);
    check(machines > 0 && pages > 1 && pages <= bytes / PAGE, "too many pages");
    uint64_t *times = mmap(NULL, machines * pages * sizeof *times, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(times != MAP_FAILED, "mmap");
    memset(times, 0, machines * pages * sizeof *times);
    int ready[2], go[2], done[2], end[2];
    check(pipe(ready) == 0 && pipe(go) == 0 && pipe(done) == 0 && pipe(end) == 0, "pipe");
    for (size_t index = 0; index < machines; index++) {
        pid_t child = fork();
        check(child >= 0, "fork");
        if (child > 0) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct machine machine = prepare(bytes);
        pid_t handler = 0;
        if (isAlone) {
            handler = fork();
            check(handler >= 0, "fork");
            if (handler == 0) handle(&machine, file);
        } else {
            hand_over(&machine, arguments[2]);
        }
        char byte = 0;
        check(write(ready[1], &byte, 1) == 1 && read(go[0], &byte, 1) == 1, "pipe");
        touch(&machine, pages, index + 1, times + index * pages);
        check(write(done[1], &byte, 1) == 1, "pipe");
        /* Until all are done: the end of a process takes time of its own. */
        check(read(end[0], &byte, 1) == 1, "pipe");
        if (handler > 0) kill(handler, SIGKILL);
        _exit(0);
    }
    close(ready[1]);
    close(done[1]);
    char byte;
    for (size_t index = 0; index < machines; index++) check(read(ready[0], &byte, 1) == 1, "a machine is gone");
    char *all = calloc(machines, 1);
    uint64_t start = now();
    check(write(go[1], all, machines) == (ssize_t)machines, "pipe");
    for (size_t index = 0; index < machines; index++) check(read(done[0], &byte, 1) == 1, "a machine is gone");
    uint64_t total = now() - start;
    check(write(end[1], all, machines) == (ssize_t)machines, "pipe");
    int code = 0, ended;
    while (wait(&ended) > 0) code |= ended;
    check(code == 0, "a machine has failed");
    qsort(times, machines * pages, sizeof *times, compare);
    printf("%llu %llu %llu\n", (unsigned long long)total, (unsigned long long)times[machines * pages / 2],
        (unsigned long long)times[machines * pages * 99 / 100]);
    return 0;
}
