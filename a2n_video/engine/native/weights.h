/* What a network is made of in C, the one list of its memory, and its weights read from torch's layouts. Included by network.c alone. */
#include "native.h"
#include "vectors.h"
#include "winograd.h"

#include <stdlib.h>

enum { STRETCH = MAX_TILES * TILE, HEAD_ROWS = 14, HEAD_ROWS_X4 = 12, RGB = 3, WINDOW = 9 * RGB, BUFFERS = 4 };

typedef struct {
    float *inner, *squeeze, *excite, *k2, *k2_bias, *last; /* 1x1 convolutions are (inputs x width) */
    conv3 k1, k3, mix;
} block;

typedef struct {
    conv3 up, sharpen; /* to scale^2 times the channels, subpixel by subpixel; HRconv */
    float *attention, *attention_bias;
    int factor;
} stage;

typedef struct {
    float *windows, *sums, *pixels[3]; /* transformed input, products, a stretch of four rows */
    float *rows[BUFFERS], *line;       /* the head's maps; a row of the skip */
} scratch;

typedef struct {
    a2n_config config;
    int features, up, stages, threads; /* channels filled up */
    block *blocks;
    float *first, *first_bias, *last, *last_bias; /* (27 x features); (tap, colour, channel) */
    conv3 trunk, shuffled;
    stage stage[2];
    a2n_pool *pool;
    scratch *scratch;
    float *map[4]; /* features, what the branches read (this block's, the next one's), attended */
    double *sums;
    int height, width; /* that the maps were made for */
    void **owned;      /* everything that is freed at the end but the maps */
    int owned_count, failed;
} network;

/* One call of `run`, as the bands see it. */
typedef struct {
    network *net;
    const float *rgb;
    float *result;
    int height, width, number; /* of the block */
    float ratio, weight;       /* attention's weight over the other's; the other's */
    map x, inner, next, attended;
} frame;

/* ------- memory: one list, so that every way out frees all of it */

static void *own(network *net, void *memory) {
    void **list = memory ? realloc(net->owned, ((size_t)net->owned_count + 1) * sizeof *list) : NULL;
    if (!list) {
        free(memory);
        net->failed = 1;
        return NULL;
    }
    net->owned = list;
    return list[net->owned_count++] = memory;
}

static float *floats(size_t count) {
    size_t bytes = (count * sizeof(float) + 127) / 64 * 64; /* and a vector more: ends are read and written in whole vectors */
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes))
        return NULL;
    memset(memory, 0, bytes);
    return memory;
}

static float *owned_floats(network *net, size_t count) { return own(net, floats(count)); }

/* ------- weights, from torch's layouts */

static const float *next_tensor(const float *const **weights) { return *(*weights)++; }

/* (outputs, inputs) -> (inputs x outputs filled up); a bias is one input. */
static float *read_point(network *net, const float *w, int outputs, int inputs) {
    size_t width = PADDED(outputs);
    float *packed = owned_floats(net, width * (size_t)inputs);
    for (int o = 0; packed && o < outputs; o++)
        for (int i = 0; i < inputs; i++)
            packed[(size_t)i * width + (size_t)o] = w[o * inputs + i];
    return packed;
}

static float *read_plain(network *net, const float *w, int count) {
    float *copy = owned_floats(net, (size_t)count);
    if (copy)
        memcpy(copy, w, (size_t)count * sizeof *copy);
    return copy;
}

static conv3 empty_conv(network *net, int inputs, int width) {
    conv3 c = {inputs, width, owned_floats(net, (size_t)POSITIONS * (size_t)inputs * (size_t)width), NULL};
    return c;
}

static void put_conv(conv3 *c, const float *w, int outputs, int inputs, int at) {
    for (int o = 0; c->products && o < outputs; o++)
        for (int i = 0; i < inputs; i++) {
            double taps[3][3];
            for (int t = 0; t < 9; t++)
                taps[t / 3][t % 3] = w[(o * inputs + i) * 9 + t];
            transform_kernel(c, at + i, o, taps);
        }
}

static conv3 read_conv(network *net, const float *w, const float *bias, int outputs, int inputs) {
    conv3 c = empty_conv(net, inputs, PADDED(outputs));
    put_conv(&c, w, outputs, inputs, 0);
    if (bias)
        c.bias = read_point(net, bias, outputs, 1);
    return c;
}

static int below(int a, int b) { return a >= 0 ? a / b : -((b - 1 - a) / b); } /* a / b, rounded down */

/* Nearest upsampling and a 3x3 convolution as one at the input's size: taps that fall on one input pixel add up (net/fuse.py). */
static conv3 read_subpixel(network *net, const float *w, const float *bias, int outputs, int inputs, int factor) {
    int width = PADDED(outputs);
    conv3 c = empty_conv(net, inputs, width * factor * factor);
    c.bias = owned_floats(net, (size_t)c.width);
    for (int s = 0; c.products && c.bias && s < factor * factor; s++)
        for (int o = 0; o < outputs; o++) {
            c.bias[s * width + o] = bias[o];
            for (int i = 0; i < inputs; i++) {
                double taps[3][3] = {{0}};
                for (int t = 0; t < 9; t++)
                    taps[below(s / factor + t / 3 - 1, factor) + 1][below(s % factor + t % 3 - 1, factor) + 1] += w[(o * inputs + i) * 9 + t];
                transform_kernel(&c, i, s * width + o, taps);
            }
        }
    return c;
}

static void read_block(network *net, block *b, const float *const **weights) {
    int n = net->config.features;
    b->inner = read_point(net, next_tensor(weights), n, n);
    b->squeeze = read_plain(net, next_tensor(weights), net->config.hidden * n);
    b->excite = read_plain(net, next_tensor(weights), 2 * net->config.hidden);
    b->k1 = read_conv(net, next_tensor(weights), NULL, n, n);
    b->k2 = read_point(net, next_tensor(weights), n, n);
    b->k2_bias = read_point(net, next_tensor(weights), n, 1);
    b->k3 = read_conv(net, next_tensor(weights), NULL, n, n);
    b->mix = empty_conv(net, 2 * n, PADDED(n)); /* k4 on the attended map, the non-attention branch beside it: their sum is taken */
    put_conv(&b->mix, next_tensor(weights), n, n, 0);
    put_conv(&b->mix, next_tensor(weights), n, n, n);
    b->last = read_point(net, next_tensor(weights), n, n);
}

static void read_stage(network *net, stage *s, const float *const **weights, int inputs) {
    int n = net->config.up_features;
    const float *const *w = *weights; /* up, bias, attention, bias, sharpen, bias */
    s->up = read_subpixel(net, w[0], w[1], n, inputs, s->factor);
    s->attention = read_point(net, w[2], n, n);
    s->attention_bias = read_point(net, w[3], n, 1);
    s->sharpen = read_conv(net, w[4], w[5], n, n);
    *weights += 6;
}

/* (3, channels, 3, 3) -> (tap, colour, channels filled up) */
static float *read_last(network *net, const float *w, int channels) {
    float *packed = owned_floats(net, (size_t)WINDOW * PADDED(channels));
    for (int i = 0; packed && i < WINDOW * channels; i++)
        packed[(i % 9 * RGB + i / 9 / channels) * PADDED(channels) + i / 9 % channels] = w[i];
    return packed;
}

/* The tensors in order: conv_first; of each block conv_first, ADM.0, ADM.2, k1, k2, its bias, k3, k4, non_attention, conv_last;
 * trunk_conv; of each stage upconv, att, HRconv; conv_last. Weights stand before their bias where there is one. */
static void read_weights(network *net, const float *const *weights) {
    const a2n_config *config = &net->config;
    net->first = read_point(net, next_tensor(&weights), config->features, WINDOW);
    net->first_bias = read_point(net, next_tensor(&weights), config->features, 1);
    for (int i = 0; i < config->blocks && !net->failed; i++)
        read_block(net, &net->blocks[i], &weights);
    if (net->failed)
        return;
    net->trunk = read_conv(net, weights[0], weights[1], config->features, config->features);
    weights += 2;
    for (int i = 0; i < net->stages; i++) {
        net->stage[i].factor = config->scale == 4 ? 2 : config->scale;
        read_stage(net, &net->stage[i], &weights, i ? config->up_features : config->features);
    }
    if (config->paper_head)
        net->last = read_last(net, weights[0], config->up_features);
    else
        net->shuffled = read_conv(net, weights[0], NULL, RGB * config->scale * config->scale, config->features);
    net->last_bias = read_plain(net, weights[1], config->paper_head ? RGB : RGB * config->scale * config->scale);
}
