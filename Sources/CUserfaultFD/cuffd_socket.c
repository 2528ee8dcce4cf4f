// Unix sockets, and descriptors passed over them.
#define _GNU_SOURCE
#include "cuffd_answer.h"
#include "cuffd_calls.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#endif

#ifndef SCM_PIDFD
#define SCM_PIDFD 4
#endif

enum {
    RIGHTS_BYTES = CMSG_SPACE(CUFFD_MAX_DESCRIPTORS * sizeof(int)),
    // With room for what options of the socket add: credentials, a pidfd, a time stamp and a security label. Without
    // it the kernel would call a message truncated whose descriptors are all there.
    CONTROL_BYTES = RIGHTS_BYTES + CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(sizeof(int)) + CMSG_SPACE(64) +
                    CMSG_SPACE(4096),
};

/// Room for the control messages, aligned as their headers must be.
union control {
    struct cmsghdr header;
    char bytes[CONTROL_BYTES];
};

int cuffd_socketpair(int sockets[2]) {
    return CUFFD_ANSWER(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
}

static int fill_address(struct sockaddr_un *address, const char *path) {
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address->sun_path) return -ENAMETOOLONG;
    strcpy(address->sun_path, path);
    return 0;
}

static int unix_socket(const char *path, int (*attach)(int, const struct sockaddr *, socklen_t)) {
    struct sockaddr_un address;
    int error = fill_address(&address, path);
    if (error < 0) return error;
    int fd = CUFFD_ANSWER(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd < 0) return fd;
    error = CUFFD_ANSWER(attach(fd, (struct sockaddr *)&address, sizeof address));
    if (error == 0) return fd;
    close(fd);
    return error;
}

int cuffd_unix_set_mode(const char *path, uint32_t mode) {
    int fd = CUFFD_ANSWER(open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (fd < 0) return fd;
    struct stat status;
    int error = CUFFD_ANSWER(fstat(fd, &status));
    if (error == 0 && !S_ISSOCK(status.st_mode)) error = -ENOTSOCK;
    char self[32];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    // What was looked at, whatever is at the path by now.
    if (error == 0) error = CUFFD_ANSWER(chmod(self, mode));
    close(fd);
    return error;
}

/// A listening socket at `path`, with these permissions if they are not negative.
static int listen_at(const char *path, int backlog, int64_t mode) {
    // Nobody connects before it listens.
    int fd = unix_socket(path, bind);
    if (fd < 0) return fd;
    int error = mode < 0 ? 0 : cuffd_unix_set_mode(path, (uint32_t)mode);
    if (error == 0) error = CUFFD_ANSWER(listen(fd, backlog));
    if (error == 0) return fd;
    unlink(path);
    close(fd);
    return error;
}

/// The bytes of the folder at the beginning of `path`, with the slash.
static int folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? (int)(slash + 1 - path) : 0;
}

/// Writes a name beside `path` that nobody has, and that tells people which path it is for; returns false where it does not
/// fit. A socket shows this name for ever.
static bool name_beside(const char *path, char *room, size_t size) {
    uint32_t number;
    if (getrandom(&number, sizeof number, GRND_NONBLOCK) != sizeof number) return false;
    int folder = folder_of(path);
    int length = snprintf(room, size, "%.*s.%s.%08x", folder, path, path + folder, number);
    if (length < 0 || (size_t)length >= size) length = snprintf(room, size, "%.*s.%08x", folder, path, number);
    return length > 0 && (size_t)length < size;
}

int cuffd_unix_listen(const char *path, int backlog, int64_t mode) {
    if (backlog < 1) backlog = 1;
    // bind makes the path, and only listen lets clients in: between them one who waits for the path would be refused, and
    // another server would take the socket for one that was left behind. So it gets its path when it listens.
    struct sockaddr_un address;
    char beside[sizeof address.sun_path];
    int error = fill_address(&address, path);
    if (error < 0) return error;
    if (!name_beside(path, beside, sizeof beside)) return listen_at(path, backlog, mode);
    int fd = listen_at(beside, backlog, mode);
    if (fd < 0) return fd;
    error = CUFFD_ANSWER(syscall(SYS_renameat2, AT_FDCWD, beside, AT_FDCWD, path, RENAME_NOREPLACE));
    if (error == 0) return fd;
    unlink(beside);
    close(fd);
    if (error == -EEXIST) return -EADDRINUSE;
    // A file system or a filter of system calls that does not know how.
    return error == -EINVAL || error == -ENOSYS || error == -EPERM ? listen_at(path, backlog, mode) : error;
}

int cuffd_unix_connect(const char *path) { return unix_socket(path, connect); }

int cuffd_unix_probe(const char *path) {
    struct sockaddr_un address;
    int error = fill_address(&address, path);
    if (error < 0) return error;
    // A datagram socket cannot be connected to a stream socket: the kernel says whether there is one, and its owner does
    // not notice.
    int fd = CUFFD_ANSWER(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (fd < 0) return fd;
    error = CUFFD_ANSWER(connect(fd, (struct sockaddr *)&address, sizeof address));
    close(fd);
    return error == -EPROTOTYPE ? 0 : error;
}

int cuffd_unix_identify(const char *path, struct cuffd_file_identity *identity) {
    struct stat status;
    int error = CUFFD_ANSWER(lstat(path, &status));
    if (error < 0) return error;
    *identity = (struct cuffd_file_identity){status.st_dev, status.st_ino};
    return S_ISSOCK(status.st_mode) ? 0 : -ENOTSOCK;
}

void cuffd_unix_remove_leftovers(const char *path) {
    struct sockaddr_un address;
    if (fill_address(&address, path) < 0) return;
    int length = folder_of(path);
    const char *name = path + length;
    size_t count = strlen(name);
    char folder[sizeof address.sun_path];
    snprintf(folder, sizeof folder, "%.*s", length, path);
    DIR *all = opendir(length > 0 ? folder : ".");
    if (all == NULL) return;
    for (struct dirent *entry; (entry = readdir(all)) != NULL;) {
        // As name_beside writes it. Of a name that is too long for that, nothing tells whose it is.
        const char *found = entry->d_name;
        if (strlen(found) != count + 10 || found[0] != '.' || strncmp(found + 1, name, count) != 0) continue;
        if (found[count + 1] != '.' || strspn(found + count + 2, "0123456789abcdef") != 8) continue;
        char beside[sizeof address.sun_path];
        if ((size_t)snprintf(beside, sizeof beside, "%s%s", folder, found) >= sizeof beside) continue;
        // First which one it is. One that is bound and does not listen yet refuses nobody by this.
        struct cuffd_file_identity identity;
        if (cuffd_unix_identify(beside, &identity) < 0 || cuffd_unix_probe(beside) != -ECONNREFUSED) continue;
        cuffd_unix_remove(beside, &identity);
    }
    closedir(all);
}

int cuffd_unix_remove(const char *path, const struct cuffd_file_identity *identity) {
    struct cuffd_file_identity found;
    int error = cuffd_unix_identify(path, &found);
    if (error < 0) return error;
    return found.device == identity->device && found.inode == identity->inode ? CUFFD_ANSWER(unlink(path)) : 0;
}

int cuffd_limit_sending(int socket, int milliseconds) {
    struct timeval limit = {milliseconds / 1000, milliseconds % 1000 * 1000};
    return CUFFD_ANSWER(setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
}

int cuffd_accept(int listener) { return CUFFD_ANSWER(accept4(listener, NULL, NULL, SOCK_CLOEXEC)); }

int cuffd_refuse_more(int socket) { return CUFFD_ANSWER(shutdown(socket, SHUT_RD)); }

int cuffd_refuses_more(int socket) {
    struct pollfd entry = {socket, POLLRDHUP, 0};
    int count = CUFFD_ANSWER(poll(&entry, 1, 0));
    return count > 0 ? (entry.revents & POLLRDHUP) != 0 : count;
}

int cuffd_pass_sender(int socket) {
    int one = 1;
    int error = CUFFD_ANSWER(setsockopt(socket, SOL_SOCKET, SO_PASSPIDFD, &one, sizeof one));
    // Linux 6.5 has the handle of the process; before it there is only its number.
    return error == -ENOPROTOOPT ? CUFFD_ANSWER(setsockopt(socket, SOL_SOCKET, SO_PASSCRED, &one, sizeof one)) : error;
}

int cuffd_tcp_connect(const char *address, uint16_t port, int milliseconds) {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } target = {0};
    socklen_t size;
    if (inet_pton(AF_INET, address, &target.v4.sin_addr) == 1) {
        target.v4.sin_family = AF_INET;
        target.v4.sin_port = htons(port);
        size = sizeof target.v4;
    } else if (inet_pton(AF_INET6, address, &target.v6.sin6_addr) == 1) {
        target.v6.sin6_family = AF_INET6;
        target.v6.sin6_port = htons(port);
        size = sizeof target.v6;
    } else {
        return -EINVAL;
    }
    int fd = CUFFD_ANSWER(socket(target.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd < 0) return fd;
    // Limits the time of connecting as well.
    int one = 1;
    int error = cuffd_limit_sending(fd, milliseconds);
    if (error == 0) error = CUFFD_ANSWER(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    if (error == 0) error = CUFFD_ANSWER(connect(fd, &target.any, size));
    if (error == 0) return fd;
    close(fd);
    // What a time that is over is called for a socket that is connecting.
    return error == -EINPROGRESS ? -ETIMEDOUT : error;
}

ssize_t cuffd_receive(int socket, void *bytes, size_t count) { return CUFFD_ANSWER(recv(socket, bytes, count, 0)); }

int cuffd_peer_credentials(int socket, struct cuffd_peer *peer) {
    struct ucred credentials = {0};
    socklen_t size = sizeof credentials;
    int answer = CUFFD_ANSWER(getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size));
    *peer = (struct cuffd_peer){credentials.pid, credentials.uid, credentials.gid};
    return answer;
}

int cuffd_peer_pidfd(int socket) {
    int pidfd = -1;
    socklen_t size = sizeof pidfd;
    int answer = CUFFD_ANSWER(getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size));
    return answer < 0 ? answer : pidfd;
}

ssize_t cuffd_send_descriptors(
    int socket, const void *bytes, size_t count, const int *descriptors, size_t descriptor_count) {
    if (descriptor_count > CUFFD_MAX_DESCRIPTORS) return -EINVAL;
    union {
        struct cmsghdr header;
        char bytes[RIGHTS_BYTES];
    } control = {0};
    struct iovec payload = {(void *)bytes, count};
    struct msghdr message = {.msg_iov = &payload, .msg_iovlen = 1};
    if (descriptor_count > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(descriptor_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(descriptor_count * sizeof(int));
        memcpy(CMSG_DATA(header), descriptors, descriptor_count * sizeof(int));
    }
    return CUFFD_ANSWER(sendmsg(socket, &message, MSG_NOSIGNAL));
}

ssize_t cuffd_receive_descriptors(int socket, void *bytes, size_t count, struct cuffd_control *control) {
    union control room;
    struct iovec payload = {bytes, count};
    struct msghdr message = {
        .msg_iov = &payload,
        .msg_iovlen = 1,
        .msg_control = room.bytes,
        .msg_controllen = sizeof room.bytes,
    };
    *control = (struct cuffd_control){.pidfd = -1};
    ssize_t received = CUFFD_ANSWER(recvmsg(socket, &message, MSG_CMSG_CLOEXEC));
    if (received < 0) return received;
    cuffd_parse_control(message.msg_control, message.msg_controllen, control);
    control->truncated = (message.msg_flags & MSG_CTRUNC) != 0;
    return received;
}

void cuffd_parse_control(void *messages, size_t length, struct cuffd_control *control) {
    *control = (struct cuffd_control){.pidfd = -1};
    size_t at = 0;
    while (length - at >= sizeof(struct cmsghdr)) {
        struct cmsghdr *header = (struct cmsghdr *)((char *)messages + at);
        // A length that leaves the buffer ends it: the kernel writes none, and nothing after it can be trusted.
        if (header->cmsg_len < sizeof *header || header->cmsg_len > length - at) return;
        size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
            size_t room = CUFFD_MAX_DESCRIPTORS - (size_t)control->count;
            if (count > room) count = room;
            memcpy(control->descriptors + control->count, CMSG_DATA(header), count * sizeof(int));
            control->count += (int)count;
        }
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_PIDFD && count == 1) {
            // The kernel may put an error in place of a descriptor.
            memcpy(&control->pidfd, CMSG_DATA(header), sizeof(int));
        }
        if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_CREDENTIALS &&
            header->cmsg_len == CMSG_LEN(sizeof(struct ucred))) {
            struct ucred credentials;
            memcpy(&credentials, CMSG_DATA(header), sizeof credentials);
            control->pid = credentials.pid;
        }
        size_t step = CMSG_ALIGN(header->cmsg_len);
        if (step > length - at) return;
        at += step;
    }
}
