#define _GNU_SOURCE
#include "CTestSupport.h"

#include "CUserfaultFD.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int install(struct sock_filter *filter, unsigned short count) {
    struct sock_fprog program = {.len = count, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
    // Every thread, not only the caller's: tests run on any thread of a pool.
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) < 0) return -errno;
    return 0;
}

int cts_refuse_userfaultfd(int error) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_userfaultfd, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned)error & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    return install(filter, sizeof filter / sizeof filter[0]);
}

int cts_refuse_poison(int error) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
        // The lower half of the request, on machines that store it first.
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)CUFFD_IOC_POISON, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((unsigned)error & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    return install(filter, sizeof filter / sizeof filter[0]);
}

int cts_hide_proc(void) {
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) return -errno;
    return mount("none", "/proc", "tmpfs", 0, NULL) < 0 ? -errno : 0;
}

int cts_show_proc(void) { return umount2("/proc", MNT_DETACH) < 0 ? -errno : 0; }

int cts_become_user(uid_t user) {
    if (setgroups(0, NULL) < 0 || setresgid(user, user, user) < 0 || setresuid(user, user, user) < 0) return -errno;
    return prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) < 0 ? -errno : 0;
}

long cts_limit_descriptors(long limit) {
    struct rlimit limits;
    if (getrlimit(RLIMIT_NOFILE, &limits) < 0) return -errno;
    long before = (long)limits.rlim_cur;
    limits.rlim_cur = (rlim_t)limit;
    return setrlimit(RLIMIT_NOFILE, &limits) < 0 ? -errno : before;
}

static void own(int socket) {
    size_t size = cuffd_page_size();
    uint64_t page = 0, features, ioctls;
    int fd = cuffd_userfaultfd(O_CLOEXEC | O_NONBLOCK | (int)CUFFD_USER_MODE_ONLY);
    if (fd == -EINVAL) fd = cuffd_userfaultfd(O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || cuffd_api(fd, 0, &features, &ioctls) < 0) _exit(201);
    if (cuffd_mmap(&page, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) < 0) _exit(202);
    if (cuffd_register(fd, page, size, CUFFD_REGISTER_MODE_MISSING, &ioctls) < 0) _exit(203);
    if (cuffd_send_descriptors(socket, &page, sizeof page, &fd, 1) != sizeof page) _exit(204);
    close(fd);
    _exit(*(volatile unsigned char *)(uintptr_t)page);
}

int cts_owner_start(struct cts_owner *owner) {
    int sockets[2];
    int answer = cuffd_socketpair(sockets);
    if (answer < 0) return answer;
    owner->socket = sockets[0];
    owner->pid = fork();
    if (owner->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
        close(sockets[0]);
        own(sockets[1]);
    }
    int error = errno;
    close(sockets[1]);
    if (owner->pid > 0) return 0;
    close(sockets[0]);
    return -error;
}

int cts_fork_loader(uintptr_t address) {
    long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);
    if (pid == 0) _exit(*(volatile unsigned char *)address);
    return pid < 0 ? -errno : (int)pid;
}

// What the testing library calls for each error that is thrown: it notes where that was, in memory from the heap. A thread
// that reads of a fork would wait there for the one that forks, which has the locks of the heap: no notes from the first
// fork on.
extern _Atomic(void *) _swift_willThrow, _swift_willThrowTypedImpl;

void cts_note_no_errors(void) { _swift_willThrow = _swift_willThrowTypedImpl = NULL; }

__attribute__((constructor)) static void prepare_for_forks(void) { pthread_atfork(cts_note_no_errors, NULL, NULL); }

int cts_fork_waiting(void) {
    pid_t pid = fork();
    if (pid != 0) return pid < 0 ? -errno : pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    for (;;) pause();
}

int cts_cancel_self(void) {
    enum { CANCEL = 32 };
    return syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), CANCEL) < 0 ? -errno : 0;
}

int cts_kill(pid_t pid) {
    kill(pid, SIGKILL);
    return cts_wait(pid);
}

int cts_wait(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR) return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

int cts_owner_end(struct cts_owner *owner, int kill_first) {
    if (kill_first) kill(owner->pid, SIGKILL);
    int end = cts_wait(owner->pid);
    close(owner->socket);
    return end;
}

static struct sigaction handed_on;

static void hand_on(int signal, siginfo_t *info, void *context) {
    __attribute__((musttail)) return handed_on.sa_sigaction(signal, info, context);
}

int cts_hand_on_faults(int flags) {
    struct sigaction action = {.sa_sigaction = hand_on, .sa_flags = SA_SIGINFO | SA_ONSTACK | flags};
    return sigaction(SIGBUS, &action, &handed_on) == 0 ? 0 : -errno;
}

ssize_t cts_send(int socket, const void *bytes, size_t count, int descriptor, size_t descriptor_count) {
    int descriptors[CUFFD_MAX_DESCRIPTORS];
    for (size_t i = 0; i < descriptor_count; i++) descriptors[i] = descriptor;
    return cuffd_send_descriptors(socket, bytes, count, descriptors, descriptor_count);
}
