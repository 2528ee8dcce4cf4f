#ifndef CSS_SPECIAL_MEMORY_H
#define CSS_SPECIAL_MEMORY_H

#include <stddef.h>
#include <stdint.h>

// Memory that the kernel's own drivers map: each answers the address of `size` bytes, or of what there is, through
// `address`, and 0 or -errno.

// A System V shared memory segment, which goes away with the process.
int css_sysv_segment(uintptr_t *address, size_t size);
// The ring of an asynchronous I/O context: pages of a file of the kernel's.
int css_aio_ring(uintptr_t *address);
// The heap's next `size` bytes, page-aligned, taken from sbrk(2).
int css_heap_pages(uintptr_t *address, size_t size);
// Ends the heap at `end`, if what was taken last is at its end still; else -EBUSY.
int css_heap_shrink(uintptr_t end, uintptr_t last);

#endif
