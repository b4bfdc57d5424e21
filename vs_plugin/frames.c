/* What is read from and written to single frames: colour tags, plane addresses, repeats. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "a2n.h"

/* VapourSynth 4.2 turned the range around and renamed it: _Range 1 is full, _ColorRange 0 is full. */
static const char *const TAGS[A2N_COLOR_TAGS] = {"_Matrix", "_Range", "_Primaries", "_Transfer", "_ChromaLocation"};
static const char OLD_RANGE[] = "_ColorRange";
enum { API_WITH_RANGE = VS_MAKE_VERSION(4, 2) };
/* H.273's matrices that are no product with R'G'B' (UNTAKEN in media/colorspec.py): refused here, for the engine would refuse
   the whole group with them. */
enum { FIRST_UNTAKEN = 10, LAST_UNTAKEN = 17 };

static int64_t number(const VSAPI *vsapi, const VSMap *props, const char *key) {
    int missing = 0;
    int64_t value = vsapi->mapGetInt(props, key, 0, &missing);
    return missing ? A2N_UNSET : value;
}

static void read_color(const VSAPI *vsapi, const VSFrame *frame, int64_t color[A2N_COLOR_TAGS]) {
    const VSMap *props = vsapi->getFramePropertiesRO(frame);
    for (int i = 0; i < A2N_COLOR_TAGS; i++)
        color[i] = number(vsapi, props, TAGS[i]);
    int64_t old = number(vsapi, props, OLD_RANGE);
    if (color[TAG_RANGE] == A2N_UNSET && old != A2N_UNSET)
        color[TAG_RANGE] = old == 0;
}

/* Why this frame cannot be upscaled, to be freed, or NULL. */
char *frame_refusal(const A2NFilter *d, const VSFrame *frame, int n) {
    char text[256] = "";
    const VSMap *props = d->vsapi->getFramePropertiesRO(frame);
    int64_t field_based = number(d->vsapi, props, "_FieldBased"), matrix = number(d->vsapi, props, "_Matrix");
    if (field_based > 0)
        snprintf(text, sizeof text,
                 "frame %d is interlaced (_FieldBased=%d): deinterlace before upscaling, or say clip.std.SetFieldBased(0) where the picture is progressive",
                 n, (int)field_based);
    else if (d->source->format.colorFamily == cfYUV && matrix >= FIRST_UNTAKEN && matrix <= LAST_UNTAKEN)
        snprintf(text, sizeof text, "frame %d has the colour matrix %d, which is not taken: convert it first, as resize.Bicubic(matrix=9) does",
                 n, (int)matrix);
    else if (!d->vsapi->getReadPtr(frame, 0))
        snprintf(text, sizeof text, "frame %d lies in a GPU's memory: bring it back before this filter", n);
    return *text ? strdup(text) : NULL;
}

/* A source frame, and a new frame whose planes are to be written, for Python. */
void frame_describe(const A2NFilter *d, const VSFrame *source, VSFrame *target, A2NFrame *out) {
    const VSAPI *vsapi = d->vsapi;
    memset(out, 0, sizeof *out);
    read_color(vsapi, source, out->color);
    for (int p = 0; p < d->source->format.numPlanes; p++) {
        out->source.address[p] = (int64_t)(uintptr_t)vsapi->getReadPtr(source, p);
        out->source.stride[p] = vsapi->getStride(source, p);
        out->target.address[p] = (int64_t)(uintptr_t)vsapi->getWritePtr(target, p);
        out->target.stride[p] = vsapi->getStride(target, p);
    }
}

static int rows_equal(const A2NFilter *d, const VSFrame *a, const VSFrame *b, int plane, int first, int step) {
    const VSAPI *vsapi = d->vsapi;
    const uint8_t *pa = vsapi->getReadPtr(a, plane), *pb = vsapi->getReadPtr(b, plane);
    if (pa == pb)
        return 1; /* the same buffer: a filter repeated the frame */
    ptrdiff_t sa = vsapi->getStride(a, plane), sb = vsapi->getStride(b, plane);
    size_t bytes = (size_t)vsapi->getFrameWidth(a, plane) * d->source->format.bytesPerSample;
    for (int y = first, height = vsapi->getFrameHeight(a, plane); y < height; y += step)
        if (memcmp(pa + y * sa, pb + y * sb, bytes) != 0)
            return 0;
    return 1;
}

/* Whether two source frames have the same samples and colour tags. A few rows all over the picture are tried first:
   black bars are equal in nearly every pair of frames. */
int frames_equal(const A2NFilter *d, const VSFrame *a, const VSFrame *b) {
    int64_t color_a[A2N_COLOR_TAGS], color_b[A2N_COLOR_TAGS];
    read_color(d->vsapi, a, color_a);
    read_color(d->vsapi, b, color_b);
    if (memcmp(color_a, color_b, sizeof color_a) != 0 || !rows_equal(d, a, b, 0, d->source->height / 2 % 61, 61))
        return 0;
    for (int p = 0; p < d->source->format.numPlanes; p++)
        if (!rows_equal(d, a, b, p, 0, 1))
            return 0;
    return 1;
}

/* Write tags over those that are present; what is so already, and what does not apply, is left alone. */
static void write_color(const A2NFilter *d, VSFrame *frame, const int64_t present[A2N_COLOR_TAGS], const int64_t color[A2N_COLOR_TAGS]) {
    if (memcmp(present, color, A2N_COLOR_TAGS * sizeof *color) == 0)
        return;
    VSMap *props = d->vsapi->getFramePropertiesRW(frame);
    int renamed = d->vsapi->getAPIVersion() >= API_WITH_RANGE;
    for (int i = 0; i < A2N_COLOR_TAGS; i++) {
        if (color[i] == A2N_UNSET || color[i] == present[i])
            continue;
        if (i == TAG_RANGE && !renamed)
            d->vsapi->mapSetInt(props, OLD_RANGE, !color[i], maReplace);
        else
            d->vsapi->mapSetInt(props, TAGS[i], color[i], maReplace);
    }
}

/* Write the colour that the engine worked with onto a result, which has its source's properties. */
void frame_tag(const A2NFilter *d, VSFrame *frame, const A2NFrame *described) {
    write_color(d, frame, described->color, described->answer);
}

/* A frame with another's planes, shared, its colour tags, and otherwise the properties of `source`. */
VSFrame *frame_repeat(const A2NFilter *d, const VSFrame *result, const VSFrame *source) {
    const VSFrame *from[A2N_PLANES] = {result, result, result};
    const int planes[A2N_PLANES] = {0, 1, 2};
    int64_t present[A2N_COLOR_TAGS], color[A2N_COLOR_TAGS];
    VSFrame *repeat = d->vsapi->newVideoFrame2(&d->target.format, d->target.width, d->target.height, from, planes, source, d->core);
    read_color(d->vsapi, source, present);
    read_color(d->vsapi, result, color);
    if (repeat)
        write_color(d, repeat, present, color);
    return repeat;
}
