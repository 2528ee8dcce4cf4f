#define _GNU_SOURCE
#include "css_smaps.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

long css_smaps_of(uintptr_t address, char *text, size_t size)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    char *line = NULL;
    size_t room = 0, used = 0;
    ssize_t count;
    bool found = false;
    if (!file)
        return -errno;
    while ((count = getline(&line, &room, file)) > 0) {
        uintptr_t start, end;
        // Only a mapping's first line has two addresses.
        if (sscanf(line, "%lx-%lx ", &start, &end) == 2) {
            if (found)
                break;
            found = address >= start && address < end;
        }
        if (!found)
            continue;
        if (used + (size_t)count > size) {
            used = 0;
            break;
        }
        memcpy(text + used, line, (size_t)count);
        used += (size_t)count;
    }
    free(line);
    fclose(file);
    return found && !used ? -ENOBUFS : (long)used;
}
