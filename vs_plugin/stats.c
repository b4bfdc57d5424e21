/* What the filter counted, for whoever sets A2N_VS_STATS=1: one line in the core's log when a filter is freed. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "a2n.h"

int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

A2NStats *stats_create(void) {
    const char *wanted = getenv("A2N_VS_STATS");
    return wanted && *wanted && *wanted != '0' ? calloc(1, sizeof(A2NStats)) : NULL;
}

/* Count a frame and the time it spent in the filter outside the engine's own work. Under the filter's lock. */
void stats_add(A2NStats *stats, int64_t spent_ns) {
    if (stats->count == stats->room) {
        size_t room = stats->room ? 2 * stats->room : 1024;
        int64_t *grown = realloc(stats->spent_ns, room * sizeof *grown);
        if (!grown)
            return;
        stats->spent_ns = grown;
        stats->room = room;
    }
    stats->spent_ns[stats->count++] = spent_ns;
}

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Write the line and free. */
void stats_report(A2NStats *stats, VSCore *core, const VSAPI *vsapi) {
    char text[256];
    qsort(stats->spent_ns, stats->count, sizeof *stats->spent_ns, by_size);
    double median = stats->count ? stats->spent_ns[stats->count / 2] / 1e3 : 0;
    double high = stats->count ? stats->spent_ns[stats->count * 9 / 10] / 1e3 : 0;
    snprintf(text, sizeof text, "a2n.Upscale: delivered=%zu calls=%lld frames=%lld repeats=%lld overhead_us_median=%.1f overhead_us_p90=%.1f",
             stats->count, (long long)stats->calls, (long long)stats->frames, (long long)stats->repeats, median, high);
    vsapi->logMessage(mtInformation, text, core);
    free(stats->spent_ns);
    free(stats);
}
