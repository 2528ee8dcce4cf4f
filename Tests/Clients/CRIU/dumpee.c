// The processes that CRIU dumps and restores in our tests: dumpee KIND FOLDER [SIZE]
//
//   heap    SIZE MiB, every page with content of its own
//   family  four processes: a parent, two children, one grandchild; each shares the parent's heap and changes a part
//   churn   goes on mapping, unmapping, growing, dropping and forking, before and after
//   sparse  SIZE GiB of addresses, one page in each MiB
//
// Each process writes FOLDER/ready.N when its memory is as it should be, and waits for the file FOLDER/go. Then it looks at
// every byte and writes FOLDER/result.N: "ok PAGES", or what is wrong. SIGBUS is written there as well: a page that was
// not served.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { page = 4096, words = page / 8 };

static const char *folder;
static int number;
static uint64_t pages_seen;

static void write_file(const char *name, const char *format, ...) {
    char path[512], temporary[512], text[256];
    snprintf(path, sizeof path, "%s/%s.%d", folder, name, number);
    snprintf(temporary, sizeof temporary, "%s/.%s.%d", folder, name, number);
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    int file = open(temporary, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (file < 0 || write(file, text, (size_t)length) != length || close(file) || rename(temporary, path)) _exit(70);
}

static _Noreturn void wrong(const char *what, uint64_t index, uint64_t found, uint64_t expected) {
    write_file("result", "wrong: %s, page %llu: %llx, not %llx\n", what, (unsigned long long)index,
               (unsigned long long)found, (unsigned long long)expected);
    _exit(1);
}

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    write_file("result", "signal %d at %p\n", signal, info->si_addr);
    _exit(2);
}

static uint64_t word(uint64_t seed, uint64_t index, unsigned position) {
    uint64_t value = seed * 0x9e3779b97f4a7c15u + index * 0xbf58476d1ce4e5b9u + position * 0x94d049bb133111ebu;
    value ^= value >> 31;
    return value * 0xd6e8feb86659fd93u | 1;  // never zero
}

static void fill(uint64_t *at, uint64_t seed, uint64_t index) {
    for (unsigned position = 0; position < words; position++) at[position] = word(seed, index, position);
}

static void check(const uint64_t *at, uint64_t seed, uint64_t index, const char *what) {
    for (unsigned position = 0; position < words; position++) {
        uint64_t expected = word(seed, index, position);
        if (at[position] != expected) wrong(what, index, at[position], expected);
    }
    pages_seen++;
}

static void check_zeros(const uint64_t *at, uint64_t index, const char *what) {
    for (unsigned position = 0; position < words; position++)
        if (at[position]) wrong(what, index, at[position], 0);
    pages_seen++;
}

static uint64_t *map(size_t pages) {
    void *memory = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        write_file("result", "mmap: %s\n", strerror(errno));
        _exit(71);
    }
    return memory;
}

static int may_go(void) {
    char path[512];
    snprintf(path, sizeof path, "%s/go", folder);
    return access(path, F_OK) == 0;
}

static void ready_and_wait(void) {
    write_file("ready", "%d\n", getpid());
    struct timespec pause = {.tv_nsec = 2000000};
    while (!may_go()) nanosleep(&pause, NULL);
}

static _Noreturn void done(void) {
    write_file("result", "ok %llu\n", (unsigned long long)pages_seen);
    _exit(0);
}

static _Noreturn void heap(size_t mib) {
    size_t pages = mib * 256;
    uint64_t *memory = map(pages);
    for (size_t index = 0; index < pages; index++) fill(memory + index * words, 1, index);
    ready_and_wait();
    for (size_t step = 0; step < pages; step++) {
        size_t index = step * 7919 % pages;  // a prime: every page once, and never in order
        check(memory + index * words, 1, index, "heap");
    }
    done();
}

// Every fourth page from the process' number on is its own; the others come from who has forked it.
static _Noreturn void family(size_t mib) {
    size_t pages = mib * 256;
    uint64_t *memory = map(pages);
    for (size_t index = 0; index < pages; index++) fill(memory + index * words, 1, index);
    uint64_t owner[4] = {1, 1, 1, 1};
    for (int child = 1; child <= 2; child++) {
        if (fork() == 0) {
            number = child;
            break;
        }
    }
    if (number == 1 && fork() == 0) {
        // The grandchild has what its parent has not yet changed.
        number = 3;
    }
    if (number) {
        owner[number] = (uint64_t)number + 1;
        for (size_t index = (size_t)number; index < pages; index += 4) fill(memory + index * words, owner[number], index);
    }
    ready_and_wait();
    for (size_t index = 0; index < pages; index++) check(memory + index * words, owner[index % 4], index, "family");
    done();
}

static _Noreturn void sparse(size_t gib) {
    size_t pages = gib << 18;
    uint64_t *memory = map(pages);
    for (size_t index = 0; index < pages; index += 256) fill(memory + index * words, 1, index);
    ready_and_wait();
    for (size_t index = 0; index < pages; index += 256) {
        check(memory + index * words, 1, index, "sparse");
        if (index % 1024 == 0) check_zeros(memory + (index + 100) * words, index + 100, "sparse hole");
    }
    done();
}

enum { block_pages = 64, blocks = 64 };

static struct {
    uint64_t *memory;
    size_t pages;
    uint64_t seed;
    size_t dropped_from, dropped_to;
} block[blocks];

static void check_block(int index) {
    for (size_t at = 0; at < block[index].pages; at++) {
        const uint64_t *memory = block[index].memory + at * words;
        if (at >= block[index].dropped_from && at < block[index].dropped_to) check_zeros(memory, at, "churn dropped");
        else check(memory, block[index].seed, at, "churn");
    }
}

static void renew_block(int index, uint64_t seed) {
    block[index].memory = map(block_pages);
    block[index].pages = block_pages;
    block[index].seed = seed;
    block[index].dropped_from = block[index].dropped_to = 0;
    for (size_t at = 0; at < block_pages; at++) fill(block[index].memory + at * words, seed, at);
}

static void change_block(int index, uint64_t seed) {
    size_t pages = block[index].pages;
    switch (seed % 6) {
    case 0:
        check_block(index);
        if (munmap(block[index].memory, pages * page)) wrong("munmap", (uint64_t)index, (uint64_t)errno, 0);
        renew_block(index, seed);
        break;
    case 1: {  // grows, and moves with what was never looked at since the dump
        if (pages > 512) break;
        void *moved = mremap(block[index].memory, pages * page, (pages + 32) * page, MREMAP_MAYMOVE);
        if (moved == MAP_FAILED) wrong("mremap", (uint64_t)index, (uint64_t)errno, 0);
        block[index].memory = moved;
        for (size_t at = pages; at < pages + 32; at++) {
            check_zeros(block[index].memory + at * words, at, "churn grown");
            fill(block[index].memory + at * words, block[index].seed, at);
        }
        block[index].pages = pages + 32;
        break;
    }
    case 2: {
        size_t from = pages / 4, to = pages / 2;
        if (madvise(block[index].memory + from * words, (to - from) * page, MADV_DONTNEED))
            wrong("madvise", (uint64_t)index, (uint64_t)errno, 0);
        for (size_t at = block[index].dropped_from; at < block[index].dropped_to; at++)
            if (at < from || at >= to) fill(block[index].memory + at * words, block[index].seed, at);
        block[index].dropped_from = from;
        block[index].dropped_to = to;
        break;
    }
    case 3: {  // a child looks at all of it while its parent goes on
        pid_t child = fork();
        if (child == 0) {
            number = 100 + (int)(seed % 1000);
            check_block(index);
            check_block((index + 7) % blocks);
            _exit(0);
        }
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child) wrong("fork", (uint64_t)index, (uint64_t)errno, 0);
        if (status) wrong("churn child", (uint64_t)index, (uint64_t)status, 0);
        break;
    }
    case 4:
        check_block(index);
        break;
    case 5: {  // the heap of libc
        char *grown = malloc(1 << 20);
        memset(grown, 0x5a, 1 << 20);
        grown = realloc(grown, 6 << 20);
        for (int at = 0; at < 1 << 20; at += page)
            if (grown[at] != 0x5a) wrong("realloc", (uint64_t)at, (uint64_t)grown[at], 0x5a);
        free(grown);
        break;
    }
    }
}

static _Noreturn void churn(void) {
    for (int index = 0; index < blocks; index++) renew_block(index, (uint64_t)index + 1);
    write_file("ready", "%d\n", getpid());
    uint64_t seed = 12345, rounds = 0;
    while (!may_go() || rounds < 500) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        change_block((int)(seed >> 40) % blocks, seed >> 20);
        rounds++;
    }
    for (int index = 0; index < blocks; index++) check_block(index);
    done();
}

int main(int count, char **arguments) {
    if (count < 3) {
        fprintf(stderr, "usage: dumpee heap|family|churn|sparse FOLDER [SIZE]\n");
        return 64;
    }
    folder = arguments[2];
    size_t size = count > 3 ? strtoul(arguments[3], NULL, 10) : 0;
    // A session and streams of its own, as CRIU wants of a tree of processes.
    if (fork() != 0) return 0;
    setsid();
    int nowhere = open("/dev/null", O_RDWR);
    if (nowhere < 0 || dup2(nowhere, 0) < 0 || dup2(nowhere, 1) < 0 || dup2(nowhere, 2) < 0) return 70;
    if (nowhere > 2) close(nowhere);
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    if (!strcmp(arguments[1], "heap")) heap(size ? size : 64);
    if (!strcmp(arguments[1], "family")) family(size ? size : 16);
    if (!strcmp(arguments[1], "sparse")) sparse(size ? size : 4);
    if (!strcmp(arguments[1], "churn")) churn();
    return 64;
}
