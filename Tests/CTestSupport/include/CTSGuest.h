// A virtual machine of one processor and no devices: a client whose pages KVM touches, not a thread of its own.
#ifndef CTSGUEST_H
#define CTSGUEST_H

#include <stddef.h>
#include <stdint.h>

enum {
    /// Bytes of a page of the guest's.
    CTS_GUEST_PAGE = 4096,
};

/// The guest's code. It runs in the first page of the memory, which must begin with it.
const void *cts_guest_code(size_t *count);

struct cts_guest {
    int system, machine, processor;
    void *run;
    size_t run_count;
};

/// Makes a machine whose physical memory, from 0 on, is the caller's. It does not touch the memory. 0 or -errno: -ENOSYS if
/// the guest's code is not for this processor; whatever the kernel says if it has no KVM, or refuses it.
int cts_guest_open(struct cts_guest *guest, void *memory, size_t count);
void cts_guest_close(struct cts_guest *guest);

/// The guest is to read pages, and to report the sum of each.
int cts_guest_read(struct cts_guest *guest, uint32_t page, uint32_t count);
/// The guest is to write the first word of pages: a value, and one more for each further page.
int cts_guest_write(struct cts_guest *guest, uint32_t page, uint32_t count, uint32_t value);

/// Runs the guest until its next report: 1 with the sum; 0 if it has done its work; -errno as KVM_RUN; -EFAULT for memory that
/// cannot be had; -EPROTO if the guest stopped in another way.
int cts_guest_next(struct cts_guest *guest, uint32_t *sum);

/// The sum of the words that the guest reports for a page with this content.
uint32_t cts_guest_sum(const void *page);

#endif
