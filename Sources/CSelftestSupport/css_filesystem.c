#include "css_filesystem.h"

#include <errno.h>
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
