#ifndef CSS_FILESYSTEM_H
#define CSS_FILESYSTEM_H

#include <stdint.h>

struct css_statfs_answer {
    uint64_t type;
    uint64_t block_size;
    uint64_t blocks;
    uint64_t free_blocks;
};

// What fstatfs(2) says; 0 or -errno.
int css_fstatfs(int fd, struct css_statfs_answer *answer);
// What statfs(2) says; 0 or -errno.
int css_statfs(const char *path, struct css_statfs_answer *answer);
// Opens a folder by which files are named (O_PATH); the descriptor or -errno.
int css_open_folder(const char *path);
// Locks a file until this description of it is closed (F_OFD_SETLK): 0, or -EAGAIN if somebody else has locked it so.
int css_lock_file(int fd);

#endif
