#ifndef CSS_GUARD_H
#define CSS_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Loads and stores that answer false, and say why, where the plain ones would end the process.
// Any thread may use them; each has its own way back. The first use takes over SIGBUS and SIGSEGV.

struct css_fault {
    int32_t signal;       // SIGBUS or SIGSEGV
    int32_t code;         // si_code: BUS_ADRERR, BUS_MCEERR_AR, SEGV_ACCERR, ...
    uintptr_t address;    // si_addr
    int32_t address_lsb;  // si_addr_lsb, which only BUS_MCEERR_* give
};

bool css_load8(uintptr_t address, uint8_t *value, struct css_fault *fault);
bool css_store8(uintptr_t address, uint8_t value, struct css_fault *fault);
bool css_copy_in(void *to, uintptr_t from, size_t count, struct css_fault *fault);
bool css_copy_out(uintptr_t to, const void *from, size_t count, struct css_fault *fault);
// Has the kernel take pages for broken hardware (MADV_HWPOISON); answers 0, -errno, or the signal that it raises at once.
int css_break_memory(uintptr_t address, size_t size);

#endif
