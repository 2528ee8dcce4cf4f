#define _GNU_SOURCE
#include "css_numa.h"

#include <errno.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

int css_move_page(uintptr_t address, int node)
{
    void *page = (void *)address;
    int status = -EAGAIN;
    if (syscall(SYS_move_pages, 0, 1UL, &page, &node, &status, MPOL_MF_MOVE) < 0)
        return -errno;
    return status == node ? 0 : status < 0 ? status : -EAGAIN;
}
