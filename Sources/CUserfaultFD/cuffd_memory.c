// Mappings, memory files, and looking at another process' memory.
#define _GNU_SOURCE
#include "cuffd_answer.h"
#include "cuffd_calls.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef GUEST_MEMFD_MAGIC
#define GUEST_MEMFD_MAGIC 0x474d454d
#endif
#ifndef SYS_process_madvise
#define SYS_process_madvise 440
#endif

const int CUFFD_PROT_NONE = PROT_NONE;
const int CUFFD_PROT_READ = PROT_READ;
const int CUFFD_PROT_WRITE = PROT_WRITE;
const int CUFFD_PROT_EXEC = PROT_EXEC;
const int CUFFD_MAP_SHARED = MAP_SHARED;
const int CUFFD_MAP_PRIVATE = MAP_PRIVATE;
const int CUFFD_MAP_ANONYMOUS = MAP_ANONYMOUS;
const int CUFFD_MAP_FIXED = MAP_FIXED;
const int CUFFD_MAP_FIXED_NOREPLACE = MAP_FIXED_NOREPLACE;
const int CUFFD_MAP_NORESERVE = MAP_NORESERVE;
const int CUFFD_MAP_POPULATE = MAP_POPULATE;
const int CUFFD_MAP_LOCKED = MAP_LOCKED;
const int CUFFD_MAP_HUGETLB = MAP_HUGETLB;
const int CUFFD_MAP_HUGE_SHIFT = 26;
const unsigned int CUFFD_MFD_CLOEXEC = MFD_CLOEXEC;
const unsigned int CUFFD_MFD_ALLOW_SEALING = MFD_ALLOW_SEALING;
const unsigned int CUFFD_MFD_HUGETLB = MFD_HUGETLB;
const int CUFFD_SEAL_SEAL = F_SEAL_SEAL;
const int CUFFD_SEAL_SHRINK = F_SEAL_SHRINK;
const int CUFFD_SEAL_GROW = F_SEAL_GROW;
const int CUFFD_SEAL_WRITE = F_SEAL_WRITE;
const int CUFFD_SEAL_FUTURE_WRITE = F_SEAL_FUTURE_WRITE;
const int CUFFD_MREMAP_MAYMOVE = MREMAP_MAYMOVE;
const int CUFFD_MREMAP_FIXED = MREMAP_FIXED;
const int CUFFD_MREMAP_DONTUNMAP = MREMAP_DONTUNMAP;
const int CUFFD_FALLOC_KEEP_SIZE = FALLOC_FL_KEEP_SIZE;
const int CUFFD_FALLOC_PUNCH_HOLE = FALLOC_FL_PUNCH_HOLE;

static void *pointer(uint64_t address) { return (void *)(uintptr_t)address; }

size_t cuffd_page_size(void) { return (size_t)sysconf(_SC_PAGESIZE); }

int cuffd_mmap(uint64_t *address, size_t length, int protection, int flags, int fd, int64_t offset) {
    void *mapped = mmap(pointer(*address), length, protection, flags, fd, offset);
    if (mapped == MAP_FAILED) return -errno;
    *address = (uintptr_t)mapped;
    return 0;
}

int cuffd_munmap(uint64_t address, size_t length) { return CUFFD_ANSWER(munmap(pointer(address), length)); }

int cuffd_mprotect(uint64_t address, size_t length, int protection) {
    return CUFFD_ANSWER(mprotect(pointer(address), length, protection));
}

int cuffd_madvise(uint64_t address, size_t length, int advice) {
    return CUFFD_ANSWER(madvise(pointer(address), length, advice));
}

ssize_t cuffd_process_madvise(int pidfd, uint64_t address, size_t length, int advice) {
    struct iovec range = {pointer(address), length};
    return CUFFD_ANSWER(syscall(SYS_process_madvise, pidfd, &range, 1UL, advice, 0U));
}

int cuffd_mremap(uint64_t address, size_t length, size_t new_length, int flags, uint64_t *new_address) {
    void *mapped = mremap(pointer(address), length, new_length, flags, pointer(*new_address));
    if (mapped == MAP_FAILED) return -errno;
    *new_address = (uintptr_t)mapped;
    return 0;
}

int cuffd_mincore(uint64_t address, size_t length, unsigned char *pages) {
    return CUFFD_ANSWER(mincore(pointer(address), length, pages));
}

int cuffd_mlock(uint64_t address, size_t length) { return CUFFD_ANSWER(mlock(pointer(address), length)); }

int cuffd_munlock(uint64_t address, size_t length) { return CUFFD_ANSWER(munlock(pointer(address), length)); }

int cuffd_memfd_create(const char *name, unsigned int flags) { return CUFFD_ANSWER(memfd_create(name, flags)); }

int cuffd_ftruncate(int fd, int64_t length) { return CUFFD_ANSWER(ftruncate(fd, length)); }

int cuffd_fallocate(int fd, int mode, int64_t offset, int64_t length) {
    return CUFFD_ANSWER(fallocate(fd, mode, offset, length));
}

int cuffd_add_seals(int fd, int seals) { return CUFFD_ANSWER(fcntl(fd, F_ADD_SEALS, seals)); }

int cuffd_get_seals(int fd) { return CUFFD_ANSWER(fcntl(fd, F_GET_SEALS)); }

int cuffd_fstat(int fd, struct cuffd_file_status *status) {
    struct stat answer;
    struct statfs filesystem;
    if (fstat(fd, &answer) < 0 || fstatfs(fd, &filesystem) < 0) return -errno;
    // st_blksize does not tell: a tmpfs that may use transparent huge pages answers their size there.
    int is_huge = filesystem.f_type == HUGETLBFS_MAGIC;
    int in_memory = is_huge || filesystem.f_type == TMPFS_MAGIC || filesystem.f_type == GUEST_MEMFD_MAGIC;
    // Before guest_memfd had a file system of its own, it alone of the anonymous inodes was regular and had a size.
    if (filesystem.f_type == ANON_INODE_FS_MAGIC && answer.st_size > 0) in_memory = 1;
    *status = (struct cuffd_file_status){
        .bytes = (uint64_t)answer.st_size,
        .blocks = (uint64_t)answer.st_blocks,
        .device = answer.st_dev,
        .inode = answer.st_ino,
        .page_size = is_huge ? (uint64_t)filesystem.f_bsize : cuffd_page_size(),
        .is_regular = S_ISREG(answer.st_mode),
        .is_directory = S_ISDIR(answer.st_mode),
        .is_block_device = S_ISBLK(answer.st_mode),
        .is_memory_file = in_memory && S_ISREG(answer.st_mode),
    };
    return 0;
}

int cuffd_pagemap_scan(int pagemap, struct cuffd_pm_scan_arg *argument) {
    argument->walk_end = 0;
    return CUFFD_ANSWER(ioctl(pagemap, CUFFD_IOC_PAGEMAP_SCAN, argument));
}

ssize_t cuffd_process_vm_read(pid_t pid, uint64_t remote, void *local, size_t length) {
    struct iovec here = {local, length}, there = {pointer(remote), length};
    return CUFFD_ANSWER(process_vm_readv(pid, &here, 1, &there, 1, 0));
}

ssize_t cuffd_process_vm_write(pid_t pid, uint64_t remote, const void *local, size_t length) {
    struct iovec here = {(void *)local, length}, there = {pointer(remote), length};
    return CUFFD_ANSWER(process_vm_writev(pid, &here, 1, &there, 1, 0));
}
