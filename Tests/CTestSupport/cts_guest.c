#include "CTSGuest.h"

#include <errno.h>
#include <string.h>

enum { words_of_page = CTS_GUEST_PAGE / sizeof(uint32_t) };

uint32_t cts_guest_sum(const void *page) {
    uint32_t sum = 0, word;
    for (size_t index = 0; index < words_of_page; index++) {
        memcpy(&word, (const char *)page + index * sizeof word, sizeof word);
        sum += word;
    }
    return sum;
}

#ifdef __x86_64__
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

// In 32 bits without page tables: esi is the address of a page, edx how many pages there are. A hypervisor that emulates
// code such as this takes a microsecond for each instruction: hence the 64 words at a time.
__asm__(
    ".pushsection .rodata\n"
    ".code32\n"
    "cts_code:\n"
    "    xorl %eax, %eax\n"
    "    movl $16, %ecx\n"
    "0:\n"
    "    .set offset, 0\n"
    "    .rept 64\n"
    "    addl offset(%esi), %eax\n"
    "    .set offset, offset + 4\n"
    "    .endr\n"
    "    addl $256, %esi\n"
    "    decl %ecx\n"
    "    jnz 0b\n"
    "    outl %eax, $0x10\n"
    "    decl %edx\n"
    "    jnz cts_code\n"
    "    hlt\n"
    "cts_code_of_write:\n"
    "    movl %eax, (%esi)\n"
    "    incl %eax\n"
    "    addl $4096, %esi\n"
    "    decl %edx\n"
    "    jnz cts_code_of_write\n"
    "    hlt\n"
    "cts_code_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char cts_code[], cts_code_of_write[], cts_code_end[];

const void *cts_guest_code(size_t *count) {
    *count = (size_t)(cts_code_end - cts_code);
    return cts_code;
}

// Where KVM keeps what a processor of Intel's needs to run without page tables: not in the guest's memory.
enum { reserved = 0xfffbc000 };

static int make(struct cts_guest *guest, void *memory, size_t count) {
    if ((guest->system = open("/dev/kvm", O_RDWR | O_CLOEXEC)) < 0) return -errno;
    if ((guest->machine = ioctl(guest->system, KVM_CREATE_VM, 0)) < 0) return -errno;
    uint64_t identity_map = reserved;
    if (ioctl(guest->machine, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0) return -errno;
    if (ioctl(guest->machine, KVM_SET_TSS_ADDR, reserved + CTS_GUEST_PAGE) < 0) return -errno;
    struct kvm_userspace_memory_region region = {.memory_size = count, .userspace_addr = (uintptr_t)memory};
    if (ioctl(guest->machine, KVM_SET_USER_MEMORY_REGION, &region) < 0) return -errno;
    if ((guest->processor = ioctl(guest->machine, KVM_CREATE_VCPU, 0)) < 0) return -errno;
    int run_count = ioctl(guest->system, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_count < 0) return -errno;
    guest->run_count = (size_t)run_count;
    guest->run = mmap(NULL, guest->run_count, PROT_READ | PROT_WRITE, MAP_SHARED, guest->processor, 0);
    if (guest->run == MAP_FAILED) return -errno;

    struct kvm_sregs registers;
    if (ioctl(guest->processor, KVM_GET_SREGS, &registers) < 0) return -errno;
    struct kvm_segment flat = {
        .limit = UINT32_MAX, .selector = 8, .type = 11, .present = 1, .db = 1, .s = 1, .g = 1};
    registers.cs = flat;
    flat.selector = 16;
    flat.type = 3;
    registers.ds = registers.es = registers.fs = registers.gs = registers.ss = flat;
    registers.cr0 |= 1;  // Protected mode.
    return ioctl(guest->processor, KVM_SET_SREGS, &registers) < 0 ? -errno : 0;
}

int cts_guest_open(struct cts_guest *guest, void *memory, size_t count) {
    *guest = (struct cts_guest){.system = -1, .machine = -1, .processor = -1, .run = MAP_FAILED};
    int result = make(guest, memory, count);
    if (result < 0) cts_guest_close(guest);
    return result;
}

void cts_guest_close(struct cts_guest *guest) {
    if (guest->run != MAP_FAILED) munmap(guest->run, guest->run_count);
    if (guest->processor >= 0) close(guest->processor);
    if (guest->machine >= 0) close(guest->machine);
    if (guest->system >= 0) close(guest->system);
}

static int begin(struct cts_guest *guest, const char *code, uint32_t page, uint32_t count, uint32_t value) {
    struct kvm_regs registers = {
        .rip = (uint64_t)(code - cts_code), .rflags = 2, .rax = value, .rdx = count,
        .rsi = (uint64_t)page * CTS_GUEST_PAGE};
    return ioctl(guest->processor, KVM_SET_REGS, &registers) < 0 ? -errno : 0;
}

int cts_guest_read(struct cts_guest *guest, uint32_t page, uint32_t count) {
    return begin(guest, cts_code, page, count, 0);
}

int cts_guest_write(struct cts_guest *guest, uint32_t page, uint32_t count, uint32_t value) {
    return begin(guest, cts_code_of_write, page, count, value);
}

int cts_guest_next(struct cts_guest *guest, uint32_t *sum) {
    struct kvm_run *run = guest->run;
    // A signal without effect, such as a profiler's, ends it early.
    while (ioctl(guest->processor, KVM_RUN, 0) < 0) {
        if (errno != EINTR) return -errno;
    }
    switch (run->exit_reason) {
    case KVM_EXIT_HLT:
        return 0;
    case KVM_EXIT_IO:
        if (run->io.direction != KVM_EXIT_IO_OUT || run->io.size != sizeof *sum) return -EPROTO;
        memcpy(sum, (char *)run + run->io.data_offset, sizeof *sum);
        return 1;
    case KVM_EXIT_MMIO:  // The guest has no devices: this is memory that a hypervisor that emulates cannot read.
        return -EFAULT;
    default:
        return -EPROTO;
    }
}
#else
const void *cts_guest_code(size_t *count) {
    *count = 0;
    return "";
}

int cts_guest_open(struct cts_guest *guest, void *memory, size_t count) {
    (void)guest, (void)memory, (void)count;
    return -ENOSYS;
}

void cts_guest_close(struct cts_guest *guest) { (void)guest; }

int cts_guest_read(struct cts_guest *guest, uint32_t page, uint32_t count) {
    (void)guest, (void)page, (void)count;
    return -ENOSYS;
}

int cts_guest_write(struct cts_guest *guest, uint32_t page, uint32_t count, uint32_t value) {
    (void)guest, (void)page, (void)count, (void)value;
    return -ENOSYS;
}

int cts_guest_next(struct cts_guest *guest, uint32_t *sum) {
    (void)guest, (void)sum;
    return -ENOSYS;
}
#endif
