#ifndef CSS_NUMA_H
#define CSS_NUMA_H

#include <stdint.h>

// Moves the page at `address`, a huge one whole, to another node: 0 when it is there, or -errno.
int css_move_page(uintptr_t address, int node);

#endif
