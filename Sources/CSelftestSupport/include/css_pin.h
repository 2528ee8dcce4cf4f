#ifndef CSS_PIN_H
#define CSS_PIN_H

#include <stddef.h>
#include <stdint.h>

// Page references of the kind that hardware and drivers take: the page may neither move nor be copied away.
// Each answers a descriptor that holds the pin, which `css_unpin_*` gives up, or -errno.

// Pins memory for writing, for long, as a registered buffer of an io_uring.
int css_pin_by_io_uring(uintptr_t address, size_t length);
int css_unpin_by_io_uring(int ring);

// Pins memory for reading, for long, by the kernel's own test interface /sys/kernel/debug/gup_test.
int css_pin_by_gup_test(uintptr_t address, size_t length);
int css_unpin_by_gup_test(int interface);

// Writes memory to `file`, opened with O_DIRECT, from offset 0: pins it for reading for as long as that takes.
int64_t css_write_directly(int file, uintptr_t address, size_t length);

// Puts a page's reference into a pipe: the page is held, not pinned, until the descriptor that this answers is closed.
int css_hold_page(uintptr_t address);

// Takes one byte of memory by reference through a pipe, and reads it from there: the number of bytes, or -errno.
int64_t css_splice_byte(uintptr_t address, uint8_t *byte);

#endif
