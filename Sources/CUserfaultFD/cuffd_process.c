// Processes: identity, capabilities, and pidfds.
#define _GNU_SOURCE
#include "cuffd_answer.h"
#include "cuffd_calls.h"

#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

const int CUFFD_CAP_SYS_PTRACE = CAP_SYS_PTRACE;
const int CUFFD_CAP_SYS_ADMIN = CAP_SYS_ADMIN;

pid_t cuffd_getpid(void) { return getpid(); }

void cuffd_kill_self(void) { kill(getpid(), SIGKILL); }

pid_t cuffd_gettid(void) { return (pid_t)syscall(SYS_gettid); }

int cuffd_pidfd_open(pid_t pid) { return (int)CUFFD_ANSWER(syscall(SYS_pidfd_open, pid, 0U)); }

int cuffd_pidfd_send_signal(int pidfd, int signal) {
    return (int)CUFFD_ANSWER(syscall(SYS_pidfd_send_signal, pidfd, signal, NULL, 0U));
}

int cuffd_pidfd_getfd(int pidfd, int number) {
    return (int)CUFFD_ANSWER(syscall(SYS_pidfd_getfd, pidfd, number, 0U));
}

int cuffd_has_capability(int capability) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {0};
    int answer = (int)CUFFD_ANSWER(syscall(SYS_capget, &header, sets));
    if (answer < 0) return answer;
    return (sets[capability / 32].effective >> (capability % 32)) & 1;
}

int cuffd_uname(char *release, size_t release_size, char *machine, size_t machine_size) {
    struct utsname names;
    if (uname(&names) < 0) return -errno;
    snprintf(release, release_size, "%s", names.release);
    snprintf(machine, machine_size, "%s", names.machine);
    return 0;
}
