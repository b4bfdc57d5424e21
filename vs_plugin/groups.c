/* The cache of groups. Only getFrame's serial part (fmParallelRequests) changes it; the lock is for those who read beside it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "a2n.h"

static int allocate(A2NGroup *g, int size) {
    g->sources = calloc(size, sizeof *g->sources);
    g->results = calloc(size, sizeof *g->results);
    g->refused = calloc(size, sizeof *g->refused);
    g->repeats = calloc(size, sizeof *g->repeats);
    g->frames = calloc(size, sizeof *g->frames);
    return g->sources && g->results && g->refused && g->repeats && g->frames;
}

/* Room for what `threads` frames in flight touch at once, one group more, those in the engine, and the one before each of them: after
   jumps they are not neighbours. */
int groups_create(A2NFilter *d, int threads) {
    d->group_count = (threads + d->batch_size - 1) / d->batch_size + 1 + 2 * d->num_streams;
    d->groups = calloc(d->group_count, sizeof *d->groups);
    int ok = d->groups != NULL;
    for (int i = 0; ok && i < d->group_count; i++)
        ok = allocate(&d->groups[i], d->batch_size);
    return ok;
}

static void empty(A2NFilter *d, A2NGroup *g) {
    for (int i = 0; i < g->count; i++) {
        d->vsapi->freeFrame(g->sources[i]);
        d->vsapi->freeFrame(g->results[i]);
        free(g->refused[i]);
        g->sources[i] = NULL;
        g->results[i] = NULL;
        g->refused[i] = NULL;
        g->repeats[i] = 0;
    }
    g->count = g->distinct = 0;
    g->state = GROUP_EMPTY;
}

/* Let go of the frames of all groups in one state. */
void groups_release(A2NFilter *d, A2NGroupState state) {
    for (int i = 0; i < d->group_count; i++)
        if (d->groups[i].state == state)
            empty(d, &d->groups[i]);
}

void groups_free(A2NFilter *d) {
    for (int i = 0; i < d->group_count; i++) {
        A2NGroup *g = &d->groups[i];
        free(g->sources);
        free(g->results);
        free(g->refused);
        free(g->repeats);
        free(g->frames);
    }
    free(d->groups);
}

static A2NGroup *find(A2NFilter *d, int index) {
    for (int i = 0; i < d->group_count; i++)
        if (d->groups[i].state != GROUP_EMPTY && d->groups[i].index == index)
            return &d->groups[i];
    return NULL;
}

/* Whether a group is in the cache, ready or on its way. */
int group_known(A2NFilter *d, int index) {
    pthread_mutex_lock(&d->lock);
    int known = find(d, index) != NULL;
    pthread_mutex_unlock(&d->lock);
    return known;
}

/* How many frames a group has, and its first; 0 past the clip's end. */
int group_span(const A2NFilter *d, int index, int *first) {
    *first = index * d->batch_size;
    int left = d->source->numFrames - *first;
    return left < 0 ? 0 : left < d->batch_size ? left : d->batch_size;
}

/* A reference to frame n's result, or NULL: with an empty error where it is not there yet, else with the reason why it never will be. */
const VSFrame *groups_result(A2NFilter *d, int n, char error[A2N_ERROR_SIZE]) {
    const VSFrame *result = NULL;
    error[0] = 0;
    pthread_mutex_lock(&d->lock);
    A2NGroup *g = find(d, n / d->batch_size);
    if (g && g->state == GROUP_READY) {
        int i = n - g->first;
        g->used = ++d->clock;
        if (g->refused[i])
            snprintf(error, A2N_ERROR_SIZE, "%s", g->refused[i]);
        else
            result = d->vsapi->addFrameRef(g->results[i]);
    }
    pthread_mutex_unlock(&d->lock);
    return result;
}

static int next_is_submitted(A2NFilter *d, const A2NGroup *g) {
    A2NGroup *next = find(d, g->index + 1);
    return next && next->state == GROUP_SUBMITTED;
}

/* The group to give up: an empty one, else the longest unused that nothing waits for or repeats from, and no frame is being made of. */
static A2NGroup *victim(A2NFilter *d) {
    A2NGroup *best = NULL;
    for (int i = 0; i < d->group_count; i++) {
        A2NGroup *g = &d->groups[i];
        if (g->state == GROUP_EMPTY)
            return g;
        int may_go = g->state == GROUP_READY && g->index != d->making && !next_is_submitted(d, g);
        if (may_go && (!best || g->used < best->used))
            best = g;
    }
    return best;
}

static A2NGroup *oldest_submitted(A2NFilter *d) {
    A2NGroup *best = NULL;
    for (int i = 0; i < d->group_count; i++) {
        A2NGroup *g = &d->groups[i];
        if (g->state == GROUP_SUBMITTED && (!best || g->used < best->used))
            best = g;
    }
    return best;
}

static int submitted(const A2NFilter *d) {
    int count = 0;
    for (int i = 0; i < d->group_count; i++)
        count += d->groups[i].state == GROUP_SUBMITTED;
    return count;
}

/* An emptied group for `index`. No more than num_streams are in the engine: what a jump in the clip left there is waited for first,
   and may then be given up (the engine writes into it until it is finished). NULL where the one to wait for is the group that a frame
   is being made of: it is waited for next, where its error is told, and `index` was only to be begun ahead of its time. */
static A2NGroup *claim(A2NFilter *d, int index, int64_t *engine_ns) {
    char ignored[A2N_ERROR_SIZE];
    while (submitted(d) >= d->num_streams) {
        int oldest = oldest_submitted(d)->index;
        if (oldest == d->making)
            return NULL;
        group_finish(d, oldest, engine_ns, ignored);
    }
    A2NGroup *g = victim(d);
    if (!g)
        return NULL;
    pthread_mutex_lock(&d->lock);
    empty(d, g);
    g->index = index;
    g->used = ++d->clock;
    g->count = group_span(d, index, &g->first);
    pthread_mutex_unlock(&d->lock);
    return g;
}

static const VSFrame *frame_before(A2NFilter *d, const A2NGroup *g, int i, int *usable) {
    const A2NGroup *from = i ? g : find(d, g->index - 1);
    int last = i ? i - 1 : from ? from->count - 1 : 0;
    *usable = from && !from->refused[last];
    return *usable ? from->sources[last] : NULL;
}

/* Take the sources from the context; sort out the refused and the repeated; make a frame for each distinct result. */
static void gather(A2NFilter *d, A2NGroup *g, VSFrameContext *ctx) {
    for (int i = 0; i < g->count; i++) {
        int usable;
        g->sources[i] = d->vsapi->getFrameFilter(g->first + i, d->node, ctx);
        g->refused[i] = frame_refusal(d, g->sources[i], g->first + i);
        if (g->refused[i])
            continue;
        const VSFrame *before = frame_before(d, g, i, &usable);
        g->repeats[i] = usable && frames_equal(d, before, g->sources[i]);
        if (g->repeats[i])
            continue;
        g->results[i] = d->vsapi->newVideoFrame(&d->target.format, d->target.width, d->target.height, g->sources[i], d->core);
        frame_describe(d, g->sources[i], g->results[i], &g->frames[g->distinct++]);
    }
}

static void forget(A2NFilter *d, A2NGroup *g) {
    pthread_mutex_lock(&d->lock);
    empty(d, g);
    pthread_mutex_unlock(&d->lock);
}

static void count_call(A2NFilter *d, const A2NGroup *g) {
    if (!d->stats)
        return;
    d->stats->calls += g->distinct > 0;
    d->stats->frames += g->distinct;
    for (int i = 0; i < g->count; i++)
        d->stats->repeats += g->repeats[i];
}

/* Start the engine on a group's distinct frames; where only one group may be in it at a time, wait for them too: one call, one turn of the GIL. */
static int start(A2NFilter *d, A2NGroup *g, int64_t *engine_ns, char error[A2N_ERROR_SIZE]) {
    int64_t ns = 0;
    if (!python_enter(error))
        return 0;
    if (d->num_streams > 1)
        g->ticket = python_submit(d->filter, g->frames, g->distinct, error);
    else
        ns = python_upscale(d->filter, g->frames, g->distinct, error);
    python_leave();
    *engine_ns += ns > 0 ? ns : 0;
    return ns >= 0 && (g->ticket || d->num_streams == 1);
}

/* Hand a group, whose sources this context has, to the engine; 0 and why on failure. Serial part only. */
int group_submit(A2NFilter *d, int index, VSFrameContext *ctx, int64_t *engine_ns, char error[A2N_ERROR_SIZE]) {
    A2NGroup *g = claim(d, index, engine_ns);
    if (!g) {
        snprintf(error, A2N_ERROR_SIZE, "every group of the cache is in use; this is a bug");
        return 0;
    }
    gather(d, g, ctx);
    g->ticket = NULL;
    if (g->distinct && !start(d, g, engine_ns, error)) {
        forget(d, g);
        return 0;
    }
    count_call(d, g);
    pthread_mutex_lock(&d->lock);
    g->state = GROUP_SUBMITTED;
    pthread_mutex_unlock(&d->lock);
    return 1;
}

static int wait_for(A2NFilter *d, A2NGroup *g, int64_t *engine_ns, char error[A2N_ERROR_SIZE]) {
    if (!g->ticket)
        return 1; /* nothing distinct was in it, or it has been waited for */
    if (!python_enter(error))
        return 0;
    int64_t ns = python_finish(d->filter, g->ticket, error);
    python_drop(g->ticket);
    g->ticket = NULL;
    python_leave();
    *engine_ns += ns > 0 ? ns : 0;
    return ns >= 0;
}

/* Tags on the results, and the repeats as frames that share planes and tags of the one before; the last source stays. */
static int complete(A2NFilter *d, A2NGroup *g) {
    A2NGroup *before = find(d, g->index - 1);
    const VSFrame *last = before && before->count ? before->results[before->count - 1] : NULL;
    for (int i = 0, next = 0; i < g->count; i++) {
        if (g->repeats[i])
            g->results[i] = last ? frame_repeat(d, last, g->sources[i]) : NULL;
        else if (!g->refused[i])
            frame_tag(d, g->results[i], &g->frames[next++]);
        last = g->results[i];
        if (!last && !g->refused[i])
            return 0;
    }
    for (int i = 0; i + 1 < g->count; i++) {
        d->vsapi->freeFrame(g->sources[i]);
        g->sources[i] = NULL;
    }
    return 1;
}

/* Wait for a submitted group (and for the one before, where this one repeats its last frame) and make it ready; 0 and why on failure,
   and the group is forgotten, so that the next frame asked for tries again. Serial part only. */
int group_finish(A2NFilter *d, int index, int64_t *engine_ns, char error[A2N_ERROR_SIZE]) {
    A2NGroup *g = find(d, index);
    if (!g)
        snprintf(error, A2N_ERROR_SIZE, "group %d was given up before its time; this is a bug", index);
    if (!g || g->state != GROUP_SUBMITTED)
        return g != NULL;
    A2NGroup *before = find(d, index - 1);
    if (g->repeats[0] && before && before->state == GROUP_SUBMITTED)
        group_finish(d, index - 1, engine_ns, error);
    int done = wait_for(d, g, engine_ns, error);
    if (done) {
        pthread_mutex_lock(&d->lock);
        done = complete(d, g);
        g->state = done ? GROUP_READY : g->state;
        g->used = ++d->clock;
        pthread_mutex_unlock(&d->lock);
        if (!done)
            snprintf(error, A2N_ERROR_SIZE, "the frame that frame %d repeats could not be made", g->first);
    }
    if (!done)
        forget(d, g);
    return done;
}
