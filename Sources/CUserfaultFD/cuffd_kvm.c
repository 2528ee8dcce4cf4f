// Memory of virtual machines: only what is needed to have one guest_memfd.
#define _GNU_SOURCE
#include "cuffd_answer.h"
#include "cuffd_calls.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum : uint64_t {
    KVM_REQUEST_CREATE_VM = 0xAE01,
    KVM_REQUEST_CREATE_GUEST_MEMFD = 0xC040AED4,
    FLAG_MMAP = 1 << 0,
    FLAG_INIT_SHARED = 1 << 1,
};

struct create_guest_memfd {
    uint64_t size;
    uint64_t flags;
    uint64_t reserved[6];
};
_Static_assert(sizeof(struct create_guest_memfd) == 64, "the request number holds the size");

int cuffd_guest_memfd(uint64_t size) {
    int kvm = CUFFD_ANSWER(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (kvm < 0) return kvm;
    int machine = CUFFD_ANSWER(ioctl(kvm, KVM_REQUEST_CREATE_VM, 0));
    close(kvm);
    if (machine < 0) return machine;
    struct create_guest_memfd argument = {.size = size, .flags = FLAG_MMAP | FLAG_INIT_SHARED};
    int file = CUFFD_ANSWER(ioctl(machine, KVM_REQUEST_CREATE_GUEST_MEMFD, &argument));
    close(machine);
    return file;
}
