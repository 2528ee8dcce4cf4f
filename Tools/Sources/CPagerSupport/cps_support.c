#define _GNU_SOURCE
#include "CPagerSupport.h"

#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

static int answer(long value) { return value < 0 ? -errno : (int)value; }

int cps_signals(sigset_t *before) {
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGHUP);
    int error = pthread_sigmask(SIG_BLOCK, &mask, before);
    return error != 0 ? -error : answer(signalfd(-1, &mask, SFD_CLOEXEC));
}

int cps_next_signal(int signals, int *is_from_terminal) {
    struct signalfd_siginfo info;
    ssize_t count = read(signals, &info, sizeof info);
    if (count < 0) return -errno;
    *is_from_terminal = info.ssi_code == SI_KERNEL;
    return (int)info.ssi_signo;
}

int cps_adopt_orphans(void) { return answer(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)); }

int cps_signal_process(int process, int number) {
    return answer(syscall(SYS_pidfd_send_signal, process, number, NULL, 0));
}

int cps_drop_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {0};
    if (syscall(SYS_capget, &header, data) != 0) return -errno;
    // Clients of other users that cannot be served any more are killed.
    uint32_t kept = data[0].permitted & 1U << CAP_KILL;
    data[0] = (struct __user_cap_data_struct){.effective = kept, .permitted = kept};
    data[1] = (struct __user_cap_data_struct){0};
    // Not even a program that it executed would have them again.
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -errno;
    return answer(syscall(SYS_capset, &header, data));
}

int cps_raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return -errno;
    limit.rlim_cur = limit.rlim_max;
    return answer(setrlimit(RLIMIT_NOFILE, &limit));
}

int cps_socket_path(int socket, char *path, size_t size) {
    struct sockaddr_un address = {0};
    socklen_t length = sizeof address;
    int is_listening = 0;
    socklen_t word = sizeof is_listening;
    if (getsockname(socket, (struct sockaddr *)&address, &length) != 0) return -errno;
    if (getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &word) != 0) return -errno;
    size_t count = length - offsetof(struct sockaddr_un, sun_path);
    if (address.sun_family != AF_UNIX || !is_listening || length <= offsetof(struct sockaddr_un, sun_path) ||
        address.sun_path[0] == 0 || count >= size)
        return -EINVAL;
    memcpy(path, address.sun_path, count);
    path[count] = 0;
    return 0;
}

int cps_is_shut(int socket) {
    struct pollfd entry = {socket, POLLRDHUP, 0};
    int count = answer(poll(&entry, 1, 0));
    return count > 0 ? (entry.revents & POLLRDHUP) != 0 : count;
}

int cps_notify(const char *message, const int *descriptors, size_t count, unsigned seconds) {
    const char *path = getenv("NOTIFY_SOCKET");
    if (path == NULL || path[0] == 0) return 0;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length >= sizeof address.sun_path || count > 16) return -EINVAL;
    memcpy(address.sun_path, path, length);
    if (path[0] == '@') address.sun_path[0] = 0;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(16 * sizeof(int))];
    } control = {0};
    struct iovec part = {(void *)message, strlen(message)};
    struct msghdr header = {
        .msg_name = &address,
        .msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length),
        .msg_iov = &part,
        .msg_iovlen = 1,
    };
    if (count > 0) {
        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(rights), descriptors, count * sizeof(int));
    }
    int socket_number = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket_number < 0) return -errno;
    // A manager that takes no messages must not hold up machines.
    struct timeval limit = {seconds, 0};
    if (setsockopt(socket_number, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0) {
        int error = -errno;
        close(socket_number);
        return error;
    }
    int result = answer(sendmsg(socket_number, &header, MSG_NOSIGNAL));
    close(socket_number);
    return result < 0 ? result : 1;
}
