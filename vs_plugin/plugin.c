/* The plugin: what it is called, what it takes. */
#include <stdio.h>
#include <stdlib.h>

#include "a2n.h"

#ifndef A2N_VERSION
#define A2N_VERSION "0"
#endif

enum { MIN_SCALE = 2, MAX_SCALE = 4, MAX_BATCH = 64, MAX_STREAMS = 8 };

static const char *text_argument(const VSMap *in, const char *key, const VSAPI *vsapi) {
    int missing = 0;
    const char *text = vsapi->mapGetData(in, key, 0, &missing);
    return missing || !*text ? NULL : text;
}

static int int_argument(const VSMap *in, const char *key, int otherwise, const VSAPI *vsapi) {
    int missing = 0;
    int value = vsapi->mapGetIntSaturated(in, key, 0, &missing);
    return missing ? otherwise : value;
}

static A2NRequest read_request(const VSMap *in, const VSAPI *vsapi) {
    return (A2NRequest){
        .scale = int_argument(in, "scale", 2, vsapi),
        .model = text_argument(in, "model", vsapi),
        .weights = text_argument(in, "weights", vsapi),
        .device = text_argument(in, "device", vsapi),
        .dtype = text_argument(in, "dtype", vsapi),
        .batch_size = int_argument(in, "batch_size", 0, vsapi),
        .num_streams = int_argument(in, "num_streams", 1, vsapi),
    };
}

static int is_upscalable(const VSVideoFormat *f) {
    int chroma = (f->subSamplingW == 0 && f->subSamplingH == 0) || (f->subSamplingW == 1 && f->subSamplingH <= 1);
    int depth = f->sampleType == stFloat ? f->bitsPerSample == 16 || f->bitsPerSample == 32 : f->bitsPerSample >= 8 && f->bitsPerSample <= 16;
    return chroma && depth;
}

/* Why these arguments cannot be used, or an empty text. */
static void check(const A2NRequest *r, const VSVideoInfo *vi, const VSAPI *vsapi, char error[A2N_ERROR_SIZE]) {
    char name[32] = "";
    error[0] = 0;
    if (vi->format.colorFamily == cfUndefined || vi->width == 0 || vi->height == 0) {
        snprintf(error, A2N_ERROR_SIZE, "the clip's format or size varies; give every frame one format and size first, e.g. with resize.Bicubic");
    } else if (!is_upscalable(&vi->format)) {
        vsapi->getVideoFormatName(&vi->format, name);
        snprintf(error, A2N_ERROR_SIZE, "%s is not taken; Gray, RGB and YUV 4:2:0, 4:2:2 and 4:4:4 are, with 8 to 16 bits or as half or single float", name);
    } else if (r->scale < MIN_SCALE || r->scale > MAX_SCALE) {
        snprintf(error, A2N_ERROR_SIZE, "scale is %d; it must be 2, 3 or 4", r->scale);
    } else if (r->batch_size < 0 || r->batch_size > MAX_BATCH) {
        snprintf(error, A2N_ERROR_SIZE, "batch_size is %d; it must be 1 to %d, or left out to have it chosen", r->batch_size, MAX_BATCH);
    } else if (r->num_streams < 1 || r->num_streams > MAX_STREAMS) {
        snprintf(error, A2N_ERROR_SIZE, "num_streams is %d; it must be 1 to %d", r->num_streams, MAX_STREAMS);
    }
}

static int open_engine(A2NFilter *d, const A2NRequest *request, char error[A2N_ERROR_SIZE]) {
    if (!python_enter(error))
        return 0;
    d->filter = python_open(request, d->source, error);
    if (d->filter) {
        d->scale = python_number(d->filter, "scale", error);
        d->batch_size = python_number(d->filter, "batch_size", error);
    }
    python_leave();
    return d->filter && !*error && d->batch_size > 0 && d->scale > 0;
}

static void never(void *data, int closed) {
    (void)closed;
    free(data);
}

static void discard(A2NFilter *d, VSMap *out, const char *why) {
    char text[A2N_ERROR_SIZE + 16];
    snprintf(text, sizeof text, "a2n.Upscale: %s", why);
    d->vsapi->mapSetError(out, text);
    d->vsapi->freeNode(d->node);
    if (d->filter)
        python_close(d->filter, never, d);
    else
        free(d);
}

static void publish(A2NFilter *d, VSMap *out) {
    VSCoreInfo info;
    VSFilterDependency from = {d->node, rpGeneral};
    d->vsapi->getCoreInfo(d->core, &info);
    d->num_streams = d->num_streams > 0 ? d->num_streams : 1;
    d->target = *d->source;
    d->target.width *= d->scale;
    d->target.height *= d->scale;
    d->stats = stats_create();
    pthread_mutex_init(&d->lock, NULL);
    if (!groups_create(d, info.numThreads)) {
        discard(d, out, "out of memory");
        return;
    }
    d->vsapi->createVideoFilter(out, "Upscale", &d->target, filter_get_frame, filter_free, fmParallelRequests, &from, 1, d, d->core);
}

static void VS_CC create(const VSMap *in, VSMap *out, void *user, VSCore *core, const VSAPI *vsapi) {
    (void)user;
    char error[A2N_ERROR_SIZE] = "";
    A2NRequest request = read_request(in, vsapi);
    A2NFilter *d = calloc(1, sizeof *d);
    if (!d) {
        vsapi->mapSetError(out, "a2n.Upscale: out of memory");
        return;
    }
    d->core = core;
    d->vsapi = vsapi;
    d->node = vsapi->mapGetNode(in, "clip", 0, NULL);
    d->source = vsapi->getVideoInfo(d->node);
    d->num_streams = request.num_streams;
    check(&request, d->source, vsapi, error);
    if (*error || !open_engine(d, &request, error))
        discard(d, out, error);
    else
        publish(d, out);
}

static void VS_CC version(const VSMap *in, VSMap *out, void *user, VSCore *core, const VSAPI *vsapi) {
    (void)in;
    (void)user;
    (void)core;
    vsapi->mapSetData(out, "version", A2N_VERSION, -1, dtUtf8, maReplace);
}

VS_EXTERNAL_API(void) VapourSynthPluginInit2(VSPlugin *plugin, const VSPLUGINAPI *vspapi) {
    vspapi->configPlugin("io.github.a2n-video", "a2n", "A2N video super-resolution", VS_MAKE_VERSION(1, 0), VAPOURSYNTH_API_VERSION, 0, plugin);
    vspapi->registerFunction(
        "Upscale",
        "clip:vnode;scale:int:opt;model:data:opt;weights:data:opt;device:data:opt;dtype:data:opt;batch_size:int:opt;num_streams:int:opt;",
        "clip:vnode;", create, NULL, plugin);
    vspapi->registerFunction("Version", "", "version:data;", version, NULL, plugin);
}
