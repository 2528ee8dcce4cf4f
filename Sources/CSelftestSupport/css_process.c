#define _GNU_SOURCE
#include "css_process.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

// Every descriptor that the runner opens is close-on-exec, so that only what is named here reaches the child.
int css_spawn_self(char *const arguments[], char *const environment[], int output, const int *descriptors, int count)
{
    enum { most = 3 };
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none, all;
    pid_t pid;
    int empty[2], copies[most], copied = 0, error = 0;

    if (count > most)
        return -EINVAL;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attributes);
    // Not /dev/null, which a small root may not have.
    if (pipe2(empty, O_CLOEXEC))
        return -errno;
    close(empty[1]);
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, empty[0], 0);
    posix_spawn_file_actions_adddup2(&files, output, 1);
    posix_spawn_file_actions_adddup2(&files, output, 2);
    // None may have the number that another is to have.
    while (!error && copied < count) {
        copies[copied] = fcntl(descriptors[copied], F_DUPFD_CLOEXEC, 3 + most);
        if (copies[copied] < 0)
            error = errno == EINVAL ? EMFILE : errno; // The limit is below the lowest number that would do.
        else
            posix_spawn_file_actions_adddup2(&files, copies[copied], 3 + copied);
        copied += copies[copied] >= 0;
    }
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setsigmask(&attributes, &none);
    if (!error)
        error = posix_spawn(&pid, "/proc/self/exe", &files, &attributes, arguments, environment);
    while (copied > 0)
        close(copies[--copied]);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    close(empty[0]);
    return error ? -error : pid;
}

// The runtime of a static Swift program looks for itself under /proc before main, and aborts if there is none. Called
// before its own constructors.
__attribute__((constructor(101))) static void tell_root(void)
{
    if (access("/proc/self/exe", R_OK))
        setenv("SWIFT_ROOT", "/", 0);
}

static int argument_count;
static char **argument_list;

// The C library calls constructors with what main gets; Swift looks into /proc for it, which may not be there.
__attribute__((constructor)) static void keep_arguments(int count, char **list)
{
    argument_count = count;
    argument_list = list;
}

int css_argument_count(void)
{
    return argument_count;
}

const char *css_argument(int index)
{
    return argument_list[index];
}

void css_use_one_arena(void)
{
    mallopt(M_ARENA_MAX, 1);
}

int css_die_with(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL))
        return -errno;
    return getppid() == parent ? 0 : -ESRCH;
}

int css_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC) || fcntl(ends[0], F_SETFL, O_NONBLOCK))
        return -errno;
    return 0;
}

int css_become_subreaper(void)
{
    return prctl(PR_SET_CHILD_SUBREAPER, 1) ? -errno : 0;
}

int css_pidfd_open(pid_t pid)
{
    int descriptor = (int)syscall(SYS_pidfd_open, pid, 0);
    return descriptor < 0 ? -errno : descriptor;
}

int css_reap(pid_t pid, struct css_exit *exit)
{
    int status;
    pid_t ended = waitpid(pid, &status, WNOHANG);
    *exit = (struct css_exit){.pid = ended > 0 ? ended : 0};
    if (ended < 0)
        return -errno;
    if (ended > 0 && WIFSIGNALED(status))
        exit->signal = WTERMSIG(status);
    else if (ended > 0)
        exit->code = WEXITSTATUS(status);
    return 0;
}

int css_signal_descriptor(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    struct sigaction hangup;
    if (sigaction(SIGHUP, NULL, &hangup) || hangup.sa_handler != SIG_IGN)
        sigaddset(&set, SIGHUP);
    int error = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (error)
        return -error;
    int descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return descriptor < 0 ? -errno : descriptor;
}

int css_read_signal(int descriptor)
{
    struct signalfd_siginfo info;
    return read(descriptor, &info, sizeof info) == sizeof info ? (int)info.ssi_signo : 0;
}

void css_die_of(int signal)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, signal);
    struct sigaction plain = {.sa_handler = SIG_DFL};
    sigaction(signal, &plain, NULL);
    raise(signal);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    _exit(128 + signal);
}

int css_swapon(const char *path)
{
    return swapon(path, SWAP_FLAG_PREFER | SWAP_FLAG_PRIO_MASK) ? -errno : 0;
}

int css_swapoff(const char *path)
{
    return swapoff(path) ? -errno : 0;
}

int css_unshare_mounts(void)
{
    if (unshare(CLONE_NEWNS))
        return -errno;
    // Without this, mounts would still show in the namespace from which this one was copied.
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ? -errno : 0;
}

int css_mount_tmpfs(const char *directory, const char *options)
{
    return mount("uffd-selftest", directory, "tmpfs", MS_NOSUID | MS_NODEV, options) ? -errno : 0;
}

int css_mount_hugetlbfs(const char *directory, const char *options)
{
    return mount("uffd-selftest", directory, "hugetlbfs", MS_NOSUID | MS_NODEV, options) ? -errno : 0;
}

int css_mount_ramfs(const char *directory)
{
    return mount("uffd-selftest", directory, "ramfs", MS_NOSUID | MS_NODEV, NULL) ? -errno : 0;
}

int css_socket_pair(int ends[2])
{
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) ? -errno : 0;
}

bool css_is_tmpfs(const char *directory)
{
    enum { TMPFS = 0x01021994 };
    struct statfs information;
    return statfs(directory, &information) == 0 && information.f_type == TMPFS;
}

int css_terminal_columns(int descriptor)
{
    struct winsize size = {0};
    if (!isatty(descriptor))
        return -errno;
    return ioctl(descriptor, TIOCGWINSZ, &size) ? 0 : size.ws_col;
}
