#ifndef CSS_SPECIAL_MEMORY_H
#define CSS_SPECIAL_MEMORY_H

#include <stddef.h>
#include <stdint.h>

// Memory that is not what mmap(2) alone makes. Functions with an `address` answer the address of `size` bytes, or of what there is, through
// it, and all answer 0 or -errno.

// A System V shared memory segment, which goes away with the process.
int css_sysv_segment(uintptr_t *address, size_t size);
// The ring of an asynchronous I/O context: pages of a file of the kernel's.
int css_aio_ring(uintptr_t *address);
// The heap's next `size` bytes, page-aligned, taken from sbrk(2).
int css_heap_pages(uintptr_t *address, size_t size);
// Ends the heap at `end`, if what was taken last is at its end still; else -EBUSY.
int css_heap_shrink(uintptr_t end, uintptr_t last);
// Seals mappings by mseal(2): they stay as they are until the process ends.
int css_seal(uintptr_t address, size_t size);

#endif
