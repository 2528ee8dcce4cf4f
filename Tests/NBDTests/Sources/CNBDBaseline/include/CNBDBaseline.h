#ifndef CNBDBASELINE_H
#define CNBDBASELINE_H

#include <stdint.h>

/// What a C program does with libnbd's asynchronous calls: reads pages in an order, many outstanding on one connection,
/// and fills each with UFFDIO_COPY when it has come.
///
/// - Returns: The time that it took, in nanoseconds, or `-errno`.
int64_t cnb_read_pages(const char *uri, const uint64_t *offsets, int64_t count, int64_t bytes, int depth);

#endif
