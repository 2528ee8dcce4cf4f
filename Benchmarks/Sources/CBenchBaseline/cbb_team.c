#define _GNU_SOURCE
#include "CBenchBaseline.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

struct member {
    struct cbb_team *team;
    pthread_t thread;
    int processor;
    size_t index;
    uint64_t begun;
    uint64_t done;
};

struct cbb_team {
    pthread_barrier_t start;
    pthread_barrier_t end;
    size_t count;
    int leaving;
    struct cbb_team_work work;
    struct member members[];
};

static void *member_run(void *argument) {
    struct member *member = argument;
    struct cbb_team *team = member->team;
    cpu_set_t processors;
    CPU_ZERO(&processors);
    CPU_SET(member->processor, &processors);
    sched_setaffinity(0, sizeof processors, &processors);
    for (;;) {
        pthread_barrier_wait(&team->start);
        if (team->leaving) return NULL;
        member->begun = cbb_now();
        const struct cbb_team_work *work = &team->work;
        cbb_touch(work->base + member->index * work->part, work->pages, work->page_size, work->order, 1, NULL);
        member->done = cbb_now();
        pthread_barrier_wait(&team->end);
    }
}

struct cbb_team *cbb_team_create(size_t count, const int *processors) {
    struct cbb_team *team = calloc(1, sizeof *team + count * sizeof team->members[0]);
    if (team == NULL) abort();
    team->count = count;
    pthread_barrier_init(&team->start, NULL, (unsigned)count + 1);
    pthread_barrier_init(&team->end, NULL, (unsigned)count + 1);
    for (size_t i = 0; i < count; i++) {
        struct member *member = &team->members[i];
        *member = (struct member){.team = team, .index = i, .processor = processors[i]};
        if (pthread_create(&member->thread, NULL, member_run, member) != 0) abort();
    }
    return team;
}

uint64_t cbb_team_touch(struct cbb_team *team, struct cbb_team_work work) {
    team->work = work;
    pthread_barrier_wait(&team->start);
    pthread_barrier_wait(&team->end);
    uint64_t first = UINT64_MAX, last = 0;
    for (size_t i = 0; i < team->count; i++) {
        if (team->members[i].begun < first) first = team->members[i].begun;
        if (team->members[i].done > last) last = team->members[i].done;
    }
    return last - first;
}

void cbb_team_destroy(struct cbb_team *team) {
    team->leaving = 1;
    pthread_barrier_wait(&team->start);
    for (size_t i = 0; i < team->count; i++) pthread_join(team->members[i].thread, NULL);
    pthread_barrier_destroy(&team->start);
    pthread_barrier_destroy(&team->end);
    free(team);
}
