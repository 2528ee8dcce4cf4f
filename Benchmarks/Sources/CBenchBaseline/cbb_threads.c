#define _GNU_SOURCE
#include "CBenchBaseline.h"

#include <sched.h>
#include <sys/eventfd.h>

void cbb_get_affinity(uint64_t *mask, size_t words) { sched_getaffinity(0, words * 8, (cpu_set_t *)mask); }

void cbb_set_affinity(const uint64_t *mask, size_t words) { sched_setaffinity(0, words * 8, (const cpu_set_t *)mask); }

int cbb_stop_create(void) { return eventfd(0, EFD_CLOEXEC); }

void cbb_stop_signal(int stop) { eventfd_write(stop, 1); }
