/* The frame server's side. fmParallelRequests: sources are asked for in parallel, groups are made by one thread at a time. */
#include <stdio.h>
#include <stdlib.h>

#include "a2n.h"

enum { NAME_SIZE = 16 };

/* What a frame in flight knows: which groups' sources it asked for (bit k: its own group's index + k), and its time in here. */
typedef struct {
    unsigned asked;
    int64_t spent_ns;
} InFlight;

static const VSFrame *fail(const char *why, VSFrameContext *ctx, const VSAPI *vsapi) {
    char text[A2N_ERROR_SIZE + NAME_SIZE];
    snprintf(text, sizeof text, "a2n.Upscale: %s", why);
    vsapi->setFilterError(text, ctx);
    return NULL;
}

static void ask_for(A2NFilter *d, InFlight *state, int index, int ahead, VSFrameContext *ctx) {
    int first, count = group_span(d, index + ahead, &first);
    for (int i = 0; i < count; i++)
        d->vsapi->requestFrameFilter(first + i, d->node, ctx);
    state->asked |= (count > 0) << ahead;
}

/* Ask for the sources of n's group, and of the groups that the engine may take meanwhile, where they are not known already. */
static void ask(A2NFilter *d, InFlight *state, int n, VSFrameContext *ctx) {
    int index = n / d->batch_size;
    for (int ahead = 0; ahead < d->num_streams; ahead++)
        if (!group_known(d, index + ahead))
            ask_for(d, state, index, ahead, ctx);
    if (!state->asked)
        d->vsapi->requestFrameFilter(n, d->node, ctx); /* the group is in the engine: come back in the serial part */
}

/* Make n's group ready; 0 and why, or 0 and an empty error where its sources had to be asked for after all. */
static int make(A2NFilter *d, InFlight *state, int n, VSFrameContext *ctx, int64_t *engine_ns, char error[A2N_ERROR_SIZE]) {
    int index = n / d->batch_size;
    char later[A2N_ERROR_SIZE];
    d->making = index;
    if (!group_known(d, index) && !(state->asked & 1)) {
        ask_for(d, state, index, 0, ctx); /* it was in the cache when this frame began, and is no more */
        return 0;
    }
    if (!group_known(d, index) && !group_submit(d, index, ctx, engine_ns, error))
        return 0;
    for (int ahead = 1; ahead < d->num_streams; ahead++)
        if ((state->asked >> ahead & 1) && !group_known(d, index + ahead) && !group_submit(d, index + ahead, ctx, engine_ns, later))
            break; /* its own frames ask for it again */
    return group_finish(d, index, engine_ns, error);
}

static void count_frame(A2NFilter *d, int64_t spent_ns) {
    if (!d->stats)
        return;
    pthread_mutex_lock(&d->lock);
    stats_add(d->stats, spent_ns);
    pthread_mutex_unlock(&d->lock);
}

static const VSFrame *begin(A2NFilter *d, int n, void **frame_data, VSFrameContext *ctx, int64_t start) {
    char error[A2N_ERROR_SIZE];
    const VSFrame *result = groups_result(d, n, error);
    if (result)
        count_frame(d, now_ns() - start);
    if (result)
        return result;
    if (*error)
        return fail(error, ctx, d->vsapi);
    InFlight *state = calloc(1, sizeof *state);
    if (!state)
        return fail("out of memory", ctx, d->vsapi);
    *frame_data = state;
    ask(d, state, n, ctx);
    state->spent_ns = now_ns() - start;
    return NULL;
}

static const VSFrame *go_on(A2NFilter *d, int n, void **frame_data, VSFrameContext *ctx, int64_t start) {
    char error[A2N_ERROR_SIZE];
    int64_t engine_ns = 0;
    InFlight *state = *frame_data;
    const VSFrame *result = groups_result(d, n, error);
    if (!result && !*error && make(d, state, n, ctx, &engine_ns, error))
        result = groups_result(d, n, error);
    state->spent_ns += now_ns() - start - engine_ns;
    if (!result && !*error)
        return NULL; /* sources are on their way */
    if (result)
        count_frame(d, state->spent_ns);
    free(state);
    *frame_data = NULL;
    return result ? result : fail(error, ctx, d->vsapi);
}

const VSFrame *VS_CC filter_get_frame(int n, int reason, void *instance, void **frame_data, VSFrameContext *ctx, VSCore *core, const VSAPI *vsapi) {
    (void)core;
    (void)vsapi;
    int64_t start = now_ns();
    if (reason == arInitial)
        return begin(instance, n, frame_data, ctx, start);
    if (reason == arAllFramesReady)
        return go_on(instance, n, frame_data, ctx, start);
    free(*frame_data);
    *frame_data = NULL;
    return NULL;
}

/* Once the engine has stopped, what it was writing into can go; where Python ended first, that is left to the end of the process. */
static void free_rest(void *data, int closed) {
    A2NFilter *d = data;
    if (closed)
        groups_release(d, GROUP_SUBMITTED);
    groups_free(d);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

void VS_CC filter_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    A2NFilter *d = instance;
    vsapi->freeNode(d->node);
    groups_release(d, GROUP_READY);
    if (d->stats)
        stats_report(d->stats, core, vsapi);
    python_close(d->filter, free_rest, d);
}
