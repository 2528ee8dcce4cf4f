#ifndef CSS_PIN_H
#define CSS_PIN_H

#include "css_ring.h"

#include <stddef.h>
#include <stdint.h>

// Page references of the kind that hardware and drivers take: the page may neither move nor be copied away.

// Pins memory for writing, for long, as a registered buffer of an io_uring, which is set up for that: 0 or -errno.
int css_pin_by_io_uring(struct css_ring *ring, uintptr_t address, size_t length);
// Stores bytes through the pin, as hardware does: without a look at the page tables. The number of bytes or -errno.
int64_t css_store_by_pin(struct css_ring *ring, uintptr_t address, const void *bytes, size_t length);
// Gives the pin up, and the ring.
int css_unpin_by_io_uring(struct css_ring *ring);

// Pins memory for reading, for long, by the kernel's own test interface /sys/kernel/debug/gup_test. Answers a descriptor
// that holds the pin until `css_unpin_by_gup_test`, or -errno.
int css_pin_by_gup_test(uintptr_t address, size_t length);
int css_unpin_by_gup_test(int interface);

// Opens a nameless file in a directory for writing without the page cache: its descriptor, or -errno.
int css_open_direct(const char *directory);
// Writes memory to `file`, opened by `css_open_direct`, from offset 0: pins it for reading for as long as that takes.
int64_t css_write_directly(int file, uintptr_t address, size_t length);

// Puts a page's reference into a pipe: the page is held, not pinned, until the descriptor that this answers is closed.
int css_hold_page(uintptr_t address);

// Takes one byte of memory by reference through a pipe, and reads it from there: the number of bytes, or -errno.
int64_t css_splice_byte(uintptr_t address, uint8_t *byte);

#endif
