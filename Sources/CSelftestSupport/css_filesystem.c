#define _GNU_SOURCE
#include "css_filesystem.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/vfs.h>

static void translate(const struct statfs *status, struct css_statfs_answer *answer) {
    *answer = (struct css_statfs_answer){
        .type = (uint64_t)status->f_type,
        .block_size = (uint64_t)status->f_bsize,
        .blocks = status->f_blocks,
        .free_blocks = status->f_bfree,
    };
}

int css_fstatfs(int fd, struct css_statfs_answer *answer) {
    struct statfs status;
    if (fstatfs(fd, &status) < 0) return -errno;
    translate(&status, answer);
    return 0;
}

int css_statfs(const char *path, struct css_statfs_answer *answer) {
    struct statfs status;
    if (statfs(path, &status) < 0) return -errno;
    translate(&status, answer);
    return 0;
}

int css_open_folder(const char *path) {
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

int css_lock_file(int fd) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : errno == EACCES ? -EAGAIN : -errno;
}
