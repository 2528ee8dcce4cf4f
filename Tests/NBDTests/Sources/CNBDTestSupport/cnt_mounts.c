#define _GNU_SOURCE
#include <sched.h>

#include "CNBDTestSupport.h"

int cnt_unshare_mounts(void) { return unshare(CLONE_NEWNS); }
