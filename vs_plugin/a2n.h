/* What the parts of the filter share. Plain C11, VapourSynth API 4, POSIX threads; no Python headers. */
#ifndef A2N_H
#define A2N_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "VapourSynth4.h"

#define A2N_PLANES 3
#define A2N_COLOR_TAGS 5
#define A2N_ERROR_SIZE 1024
#define A2N_UNSET (-1)

/* One frame as Python sees it, a row of int64: vs_engine.py reads this layout, and writes `answer`.
   color, answer: matrix, range (1 full, 0 limited), primaries, transfer, chroma location (VapourSynth's numbers), A2N_UNSET where absent. */
typedef struct {
    int64_t address[A2N_PLANES];
    int64_t stride[A2N_PLANES];
} A2NPlanes;

typedef struct {
    int64_t color[A2N_COLOR_TAGS];  /* the source's */
    int64_t answer[A2N_COLOR_TAGS]; /* the result's: what the engine worked with; gray's are the source's */
    A2NPlanes source, target;
} A2NFrame;

enum { TAG_MATRIX, TAG_RANGE, TAG_PRIMARIES, TAG_TRANSFER, TAG_CHROMA };

/* What the script asked for; strings live as long as the argument map, NULL and 0 mean "not given". */
typedef struct {
    int scale;
    const char *model, *weights, *device, *dtype;
    int batch_size;
    int num_streams;
} A2NRequest;

typedef struct PyObject PyObject;

/* One aligned run of source frames: frames index * batch_size and the batch_size - 1 that follow, fewer at the clip's end. */
typedef enum { GROUP_EMPTY, GROUP_SUBMITTED, GROUP_READY } A2NGroupState;

typedef struct {
    A2NGroupState state;
    int index;
    int first, count;
    uint64_t used;              /* the clock at the last use; the smallest is evicted */
    const VSFrame **sources;    /* until the group is ready; the last one stays, to recognise a repeat in the next group */
    VSFrame **results;          /* NULL where refused */
    char **refused;             /* one sentence a refused frame, else NULL */
    unsigned char *repeats;     /* the frame repeats the one before it */
    A2NFrame *frames;           /* the distinct ones, packed; allocated once */
    int distinct;
    PyObject *ticket;
} A2NGroup;

typedef struct {
    int64_t *spent_ns;
    size_t count, room;
    int64_t calls, frames, repeats;
} A2NStats;

typedef struct {
    VSNode *node;
    const VSVideoInfo *source;
    VSVideoInfo target;
    PyObject *filter;
    int scale, batch_size, num_streams;
    A2NGroup *groups;
    int group_count;
    int making;                 /* the index of the group that a frame is being made of; serial part only */
    uint64_t clock;
    pthread_mutex_t lock;       /* guards state, results, refused and used of every group, and the statistics; never held while waiting for Python */
    A2NStats *stats;            /* NULL unless A2N_VS_STATS is set */
    VSCore *core;
    const VSAPI *vsapi;
} A2NFilter;

/* python.c: every call into Python. `error` takes a sentence without the filter's name. */
int python_enter(char error[A2N_ERROR_SIZE]);
void python_leave(void);
PyObject *python_open(const A2NRequest *request, const VSVideoInfo *vi, char error[A2N_ERROR_SIZE]);
int python_number(PyObject *filter, const char *name, char error[A2N_ERROR_SIZE]);
PyObject *python_submit(PyObject *filter, A2NFrame *frames, int count, char error[A2N_ERROR_SIZE]);
int64_t python_finish(PyObject *filter, PyObject *ticket, char error[A2N_ERROR_SIZE]);
int64_t python_upscale(PyObject *filter, A2NFrame *frames, int count, char error[A2N_ERROR_SIZE]);
void python_drop(PyObject *object);
void python_close(PyObject *filter, void (*then)(void *, int closed), void *context);

/* frames.c: what is read from and written to single frames. */
char *frame_refusal(const A2NFilter *d, const VSFrame *frame, int n);
void frame_describe(const A2NFilter *d, const VSFrame *source, VSFrame *target, A2NFrame *out);
int frames_equal(const A2NFilter *d, const VSFrame *a, const VSFrame *b);
void frame_tag(const A2NFilter *d, VSFrame *frame, const A2NFrame *described);
VSFrame *frame_repeat(const A2NFilter *d, const VSFrame *result, const VSFrame *source);

/* groups.c: the cache of groups. */
int groups_create(A2NFilter *d, int threads);
void groups_release(A2NFilter *d, A2NGroupState state);
void groups_free(A2NFilter *d);
const VSFrame *groups_result(A2NFilter *d, int n, char error[A2N_ERROR_SIZE]);
int group_known(A2NFilter *d, int index);
int group_span(const A2NFilter *d, int index, int *first);
int group_submit(A2NFilter *d, int index, VSFrameContext *ctx, int64_t *engine_ns, char error[A2N_ERROR_SIZE]);
int group_finish(A2NFilter *d, int index, int64_t *engine_ns, char error[A2N_ERROR_SIZE]);

/* filter.c: the frame server's side. */
const VSFrame *VS_CC filter_get_frame(int n, int reason, void *instance, void **frame_data, VSFrameContext *ctx, VSCore *core, const VSAPI *vsapi);
void VS_CC filter_free(void *instance, VSCore *core, const VSAPI *vsapi);

/* stats.c */
int64_t now_ns(void);
A2NStats *stats_create(void);
void stats_add(A2NStats *stats, int64_t spent_ns);
void stats_report(A2NStats *stats, VSCore *core, const VSAPI *vsapi);

#endif
