#include "css_filesystem.h"

#include <errno.h>
#include <sys/vfs.h>

int css_fstatfs(int fd, struct css_statfs_answer *answer) {
    struct statfs status;
    if (fstatfs(fd, &status) < 0) return -errno;
    *answer = (struct css_statfs_answer){
        .type = (uint64_t)status.f_type,
        .block_size = (uint64_t)status.f_bsize,
        .blocks = status.f_blocks,
        .free_blocks = status.f_bfree,
    };
    return 0;
}
