/* A2N (net/model.py) for one width of vectors: every block in two passes over bands of rows, each band on one thread.
 *
 * Pass `attend` makes the attended map, pass `mix` the block's result and, while its rows are at hand, what the next block's branches
 * and gates read. The gates need a mean over the whole frame, so a pass ends on all bands before the next begins. A band's
 * arithmetic does not depend on which thread does it, and sums are added up in the order of bands: results are the same for any
 * number of threads. The head's rows live only in a band's own buffers.
 */
#include "native.h"
#include "vectors.h"
#include "winograd.h"

#include <math.h>
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

/* ------- small steps on rows of pixels */

INLINE float *pixel(const map *m, int row, int column) {
    return m->data + ((size_t)(row - m->first) * (size_t)m->width + (size_t)column) * (size_t)m->channels;
}

static int smaller(int a, int b) { return a < b ? a : b; }

/* `count` pixels of the first convolution from (row, column) on, written `out`. */
static void first_features(const frame *f, scratch *own_scratch, int row, int column, int count, float *out) {
    float *window = own_scratch->sums;
    for (int i = 0; i < count; i++)
        for (int t = 0; t < WINDOW; t++) {
            int colour = t / 9, y = row + t % 9 / 3 - 1, x = column + i + t % 3 - 1;
            int inside = y >= 0 && y < f->height && x >= 0 && x < f->width;
            window[i * WINDOW + t] = inside ? f->rgb[((size_t)colour * (size_t)f->height + (size_t)y) * (size_t)f->width + (size_t)x] : 0;
        }
    const network *net = f->net;
    multiply(window, WINDOW, net->first, count, WINDOW, net->features, out, (size_t)net->features);
    for (int i = 0; i < count; i++)
        for (int c = 0; c < net->features; c += LANES)
            store(out + i * net->features + c, load(out + i * net->features + c) + load(net->first_bias + c));
}

/* What a block's branches read, from `count` pixels of features, and its sum over them. */
static void inner_features(const network *net, const block *b, const float *x, int count, float *out, double *sums) {
    int n = net->features;
    multiply(x, (size_t)n, b->inner, count, net->config.features, n, out, (size_t)n);
    for (int c = 0; c < n; c += LANES) {
        vec sum = {0};
        for (int i = 0; i < count; i++) {
            vec value = lrelu(load(out + i * n + c));
            store(out + i * n + c, value);
            sum += value;
        }
        for (int lane = 0; lane < LANES; lane++)
            sums[c + lane] += (double)sum[lane];
    }
}

static const ahead nothing = {0};

/* What the tiles to the right of these read. */
static void window_ahead(ahead *next, const map *m, int row, int column, int tiles) {
    add_ahead(next, m, row - 1, TILE + 2, column + tiles * TILE, tiles * TILE + 1);
}

typedef void (*stretch_task)(const frame *f, scratch *s, int row, int column, int tiles);

/* A band is one row of tiles; stretches of it are as even as can be. */
static void over_band(const frame *f, int item, int worker, stretch_task task) {
    int tiles = (f->width + TILE - 1) / TILE, parts = (tiles + MAX_TILES - 1) / MAX_TILES;
    for (int i = 0; i < parts; i++) {
        int from = tiles * i / parts, to = tiles * (i + 1) / parts;
        task(f, &f->net->scratch[worker], item * TILE, from * TILE, to - from);
    }
}

static double *band_sums(const frame *f, int row) { return f->net->sums + (size_t)(row / TILE) * (size_t)f->net->features; }

/* ------- the passes */

static void first_stretch(const frame *f, scratch *s, int row, int column, int tiles) {
    int count = smaller(tiles * TILE, f->width - column);
    for (int y = row; y < smaller(row + TILE, f->height); y++) {
        first_features(f, s, y, column, count, pixel(&f->x, y, column));
        inner_features(f->net, &f->net->blocks[0], pixel(&f->x, y, column), count, pixel(&f->next, y, column), band_sums(f, row));
    }
}

static void attend_stretch(const frame *f, scratch *s, int row, int column, int tiles) {
    const block *b = &f->net->blocks[f->number];
    int n = f->net->features, count = smaller(tiles * TILE, f->width - column);
    float *a = s->pixels[0], *y = s->pixels[1], *gate = s->pixels[2];
    transform_input(&f->inner, row, column, tiles, s->windows, n);
    ahead next = {0};
    add_ahead(&next, &f->attended, row, TILE, column, tiles * TILE);
    window_ahead(&next, &f->inner, row, column, tiles);
    multiply_positions(&b->k1, s->windows, n, tiles, s->sums, &next);
    transform_output(&b->k1, s->sums, tiles, 1, a);
    multiply_positions(&b->k3, s->windows, n, tiles, s->sums, &nothing);
    transform_output(&b->k3, s->sums, tiles, 0, y);
    for (int r = 0; r < smaller(TILE, f->height - row); r++) {
        size_t at = (size_t)(r * STRETCH) * (size_t)n;
        float *out = pixel(&f->attended, row + r, column);
        multiply(a + at, (size_t)n, b->k2, count, f->net->config.features, n, gate, (size_t)n);
        for (int i = 0; i < count * n; i += LANES)
            store(out + i, load(y + at + i) * sigmoid(load(gate + i) + load(b->k2_bias + i % n)) * f->ratio);
    }
}

static void mix_stretch(const frame *f, scratch *s, int row, int column, int tiles) {
    const network *net = f->net;
    const block *b = &net->blocks[f->number], *after = f->number + 1 < net->config.blocks ? b + 1 : NULL;
    int n = net->features, stride = net->config.features + n, count = smaller(tiles * TILE, f->width - column);
    float *mixed = s->pixels[0], *correction = s->pixels[1];
    transform_input(&f->attended, row, column, tiles, s->windows, stride);
    transform_input(&f->inner, row, column, tiles, s->windows + net->config.features, stride);
    ahead next = {0};
    add_ahead(&next, &f->x, row, TILE, column, tiles * TILE);
    window_ahead(&next, &f->attended, row, column, tiles);
    window_ahead(&next, &f->inner, row, column, tiles);
    multiply_positions(&b->mix, s->windows, stride, tiles, s->sums, &next);
    transform_output(&b->mix, s->sums, tiles, 1, mixed);
    for (int r = 0; r < smaller(TILE, f->height - row); r++) {
        float *x = pixel(&f->x, row + r, column);
        multiply(mixed + (size_t)(r * STRETCH) * (size_t)n, (size_t)n, b->last, count, net->config.features, n, correction, (size_t)n);
        for (int i = 0; i < count * n; i += LANES)
            store(x + i, load(x + i) + load(correction + i) * f->weight);
        if (after)
            inner_features(net, after, x, count, pixel(&f->next, row + r, column), band_sums(f, row));
    }
}

static void trunk_stretch(const frame *f, scratch *s, int row, int column, int tiles) {
    int n = f->net->features, count = smaller(tiles * TILE, f->width - column);
    transform_input(&f->x, row, column, tiles, s->windows, n);
    ahead next = {0};
    window_ahead(&next, &f->x, row, column, tiles);
    multiply_positions(&f->net->trunk, s->windows, n, tiles, s->sums, &next);
    transform_output(&f->net->trunk, s->sums, tiles, 0, s->pixels[0]);
    for (int r = 0; r < smaller(TILE, f->height - row); r++) {
        float *out = pixel(&f->next, row + r, column), *trunk = s->pixels[0] + (size_t)(r * STRETCH) * (size_t)n;
        first_features(f, s, row + r, column, count, out);
        for (int i = 0; i < count * n; i += LANES)
            store(out + i, load(out + i) + load(trunk + i));
    }
}

/* ------- the head: the bilinear enlargement, and the network's correction of it */

/* Where a row or column of the result lies: torch's bilinear, corners not aligned. */
static void between(int at, int scale, int size, int *low, int *high, float *share) {
    float place = ((float)at + 0.5f) / (float)scale - 0.5f;
    place = place < 0 ? 0 : place;
    *low = smaller((int)place, size - 1);
    *high = smaller(*low + 1, size - 1);
    *share = place - (float)*low;
}

/* A row of the enlargement above source columns from .. to, (3 x scale * width), to `line`; behind that `line` has room for the blend of two
 * source rows. */
static void skip_row(const frame *f, int row, int from, int to, float *line) {
    int scale = f->net->config.scale, low, high;
    float share, *blend = line + (size_t)RGB * (size_t)scale * (size_t)f->width;
    between(row, scale, f->height, &low, &high, &share);
    for (int colour = 0; colour < RGB; colour++) {
        const float *plane = f->rgb + (size_t)colour * (size_t)f->height * (size_t)f->width;
        const float *a = plane + (size_t)low * (size_t)f->width, *b = plane + (size_t)high * (size_t)f->width;
        float *out = line + (size_t)colour * (size_t)scale * (size_t)f->width;
        for (int x = from > 0 ? from - 1 : 0; x < smaller(to + 1, f->width); x++)
            blend[x] = a[x] + share * (b[x] - a[x]);
        for (int phase = 0; phase < scale; phase++)
            for (int x = from; x < to; x++) {
                int left, right;
                float t;
                between(x * scale + phase, scale, f->width, &left, &right, &t);
                out[x * scale + phase] = blend[left] + t * (blend[right] - blend[left]);
            }
    }
}

static float *result_row(const frame *f, int colour, int row) {
    size_t scale = (size_t)f->net->config.scale;
    return f->result + ((size_t)colour * scale * (size_t)f->height + (size_t)row) * scale * (size_t)f->width;
}

typedef void (*rows_task)(const frame *f, scratch *s, const map *in, map *out, const stage *st, int row, int column, int tiles);

/* Do tiles for all rows of `in`'s size from `from` up to `to` that lie in the frame. */
static void over_rows(const frame *f, scratch *s, const map *in, map *out, const stage *st, int from, int to, rows_task task) {
    int tiles = (in->width + TILE - 1) / TILE, parts = (tiles + MAX_TILES - 1) / MAX_TILES;
    for (int row = from; row < to; row += TILE) {
        if (row + TILE <= 0 || row >= in->height)
            continue;
        for (int i = 0; i < parts; i++) {
            int left = tiles * i / parts, right = tiles * (i + 1) / parts;
            task(f, s, in, out, st, row, left * TILE, right - left);
        }
    }
}

static int holds(const map *m, int row) { return row >= m->first && row < m->first + m->rows && row >= 0 && row < m->height; }

/* Subpixels, pixel attention, lrelu: in (h, w, inputs) -> out (h * factor, w * factor, up). */
static void enlarge_tiles(const frame *f, scratch *s, const map *in, map *out, const stage *st, int row, int column, int tiles) {
    const network *net = f->net;
    int n = net->up, factor = st->factor, count = smaller(tiles * TILE, in->width - column);
    size_t width = (size_t)st->up.width;
    transform_input(in, row, column, tiles, s->windows, in->channels);
    ahead next = {0};
    window_ahead(&next, in, row, column, tiles);
    multiply_positions(&st->up, s->windows, in->channels, tiles, s->sums, &next);
    transform_output(&st->up, s->sums, tiles, 0, s->pixels[0]);
    for (int r = 0; r < TILE; r++)
        for (int sub = 0; sub < factor * factor; sub++) {
            int y = (row + r) * factor + sub / factor;
            if (!holds(out, y))
                continue;
            const float *up = s->pixels[0] + (size_t)(r * STRETCH) * width + (size_t)(sub * n);
            multiply(up, width, st->attention, count, net->config.up_features, n, s->pixels[1], (size_t)n);
            for (int i = 0; i < count; i++)
                for (int c = 0; c < n; c += LANES) {
                    vec gate = sigmoid(load(s->pixels[1] + i * n + c) + load(st->attention_bias + c));
                    store(pixel(out, y, (column + i) * factor + sub % factor) + c, lrelu(load(up + (size_t)i * width + c) * gate));
                }
        }
}

/* HRconv and lrelu, size kept. */
static void sharpen_tiles(const frame *f, scratch *s, const map *in, map *out, const stage *st, int row, int column, int tiles) {
    (void)f;
    int n = out->channels, count = smaller(tiles * TILE, in->width - column);
    transform_input(in, row, column, tiles, s->windows, n);
    multiply_positions(&st->sharpen, s->windows, n, tiles, s->sums, &nothing);
    transform_output(&st->sharpen, s->sums, tiles, 1, s->pixels[0]);
    for (int r = 0; r < TILE; r++)
        if (holds(out, row + r))
            memcpy(pixel(out, row + r, column), s->pixels[0] + (size_t)(r * STRETCH) * (size_t)n, (size_t)(count * n) * sizeof(float));
}

static float total(vec x) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++)
        sum += x[lane];
    return sum;
}

/* The last convolution on top of the enlargement: one row of the result. */
static void last_row(const frame *f, const map *in, int row, float *line) {
    const network *net = f->net;
    skip_row(f, row, 0, f->width, line);
    for (int x = 0; x < in->width; x++) {
        vec sum[RGB] = {{0}, {0}, {0}};
        for (int t = 0; t < 9; t++) {
            int y = row + t / 3 - 1, at = x + t % 3 - 1;
            if (y < 0 || y >= in->height || at < 0 || at >= in->width)
                continue;
            const float *p = pixel(in, y, at), *w = net->last + (size_t)(t * RGB * net->up);
            for (int c = 0; c < net->up; c += LANES)
                for (int colour = 0; colour < RGB; colour++)
                    sum[colour] += load(p + c) * load(w + colour * net->up + c);
        }
        for (int colour = 0; colour < RGB; colour++)
            result_row(f, colour, row)[x] = line[(size_t)colour * (size_t)in->width + (size_t)x] + net->last_bias[colour] + total(sum[colour]);
    }
}

static map part_of(float *data, int first, int rows, const map *whole, int factor, int channels) {
    map m = {data, first, rows, whole->width * factor, whole->height * factor, channels};
    return m;
}

/* The paper's head on rows [a, b) of the frame: each map has as many rows more as the steps after it read. */
static void paper_head(const frame *f, scratch *s, int a, int b) {
    const network *net = f->net;
    int scale = net->config.scale, halo = net->stages == 2 ? 3 : 2, reached = 1;
    map in = f->next;
    for (int i = 0; i < net->stages; i++) {
        const stage *st = &net->stage[i];
        reached *= st->factor;
        int more = i + 1 == net->stages ? 2 : halo;
        map up = part_of(s->rows[2 * i], a * reached - more, (b - a) * reached + 2 * more, &f->next, reached, net->up);
        map sharp = part_of(s->rows[2 * i + 1], up.first + 1, up.rows - 2, &f->next, reached, net->up);
        over_rows(f, s, &in, &up, st, below(up.first, st->factor), below(up.first + up.rows - 1, st->factor) + 1, enlarge_tiles);
        over_rows(f, s, &up, &sharp, st, sharp.first, sharp.first + sharp.rows, sharpen_tiles);
        in = sharp;
    }
    for (int row = a * scale; row < b * scale; row++)
        last_row(f, &in, row, s->line);
}

static int head_rows(const network *net) { return net->config.scale == 4 ? HEAD_ROWS_X4 : HEAD_ROWS; }

static void head_band(void *context, int item, int worker) {
    const frame *f = context;
    int rows = head_rows(f->net);
    paper_head(f, &f->net->scratch[worker], item * rows, smaller((item + 1) * rows, f->height));
}

static void shuffle_stretch(const frame *f, scratch *s, int row, int column, int tiles) {
    const network *net = f->net;
    int scale = net->config.scale, width = net->shuffled.width, count = smaller(tiles * TILE, f->width - column);
    transform_input(&f->next, row, column, tiles, s->windows, net->features);
    ahead next = {0};
    window_ahead(&next, &f->next, row, column, tiles);
    multiply_positions(&net->shuffled, s->windows, net->features, tiles, s->sums, &next);
    transform_output(&net->shuffled, s->sums, tiles, 0, s->pixels[0]);
    for (int y = row * scale; y < smaller(row + TILE, f->height) * scale; y++) {
        skip_row(f, y, column, column + count, s->line);
        const float *p = s->pixels[0] + (size_t)((y / scale - row) * STRETCH) * (size_t)width;
        for (int colour = 0; colour < RGB; colour++)
            for (int x = column * scale; x < (column + count) * scale; x++) {
                int channel = (colour * scale + y % scale) * scale + x % scale;
                result_row(f, colour, y)[x] = s->line[(size_t)(colour * scale * f->width + x)] + net->last_bias[channel] + p[(x / scale - column) * width + channel];
            }
    }
}

/* ------- a frame */

#define BAND(name)                                             \
    static void name##_band(void *context, int item, int worker) { \
        over_band(context, item, worker, name##_stretch);      \
    }
BAND(first)
BAND(attend)
BAND(mix)
BAND(trunk)
BAND(shuffle)

/* The attention dropout module: the two branches' weights from the mean of what they read. */
static void set_gates(frame *f, int bands) {
    const network *net = f->net;
    const block *b = &net->blocks[f->number];
    int n = net->config.features, hidden = net->config.hidden;
    double score[2] = {0, 0};
    for (int h = 0; h < hidden; h++) {
        double value = 0;
        for (int c = 0; c < n; c++) {
            double sum = 0;
            for (int band = 0; band < bands; band++)
                sum += net->sums[(size_t)band * (size_t)net->features + (size_t)c];
            value += b->squeeze[h * n + c] * sum / ((double)f->height * f->width);
        }
        for (int i = 0; i < 2; i++)
            score[i] += b->excite[i * hidden + h] * (value > 0 ? value : 0);
    }
    double odds = exp((score[0] - score[1]) / net->config.temperature);
    f->ratio = (float)odds;
    f->weight = (float)(1 / (1 + odds));
}

static void clear_maps(network *net) {
    for (int i = 0; i < 4; i++) {
        free(net->map[i]);
        net->map[i] = NULL;
    }
    free(net->sums);
    net->sums = NULL;
    for (int i = 0; net->scratch && i < net->threads; i++) {
        scratch *s = &net->scratch[i];
        for (int k = 0; k < BUFFERS; k++) {
            free(s->rows[k]);
            s->rows[k] = NULL;
        }
        free(s->line);
        s->line = NULL;
    }
    net->height = net->width = 0;
}

static size_t line_floats(const network *net, int width) { return (size_t)RGB * (size_t)net->config.scale * (size_t)width + (size_t)width; }

/* Of one of the head's maps, k of 2 * stages. */
static size_t row_floats(const network *net, int k, int width) {
    int reached = k < 2 ? net->stage[0].factor : net->config.scale;
    return (size_t)(head_rows(net) * reached + 6) * (size_t)(width * reached) * (size_t)net->up;
}

static int make_head_rows(network *net, scratch *s, int width) {
    int ok = (s->line = floats(line_floats(net, width))) != NULL;
    for (int k = 0; ok && k < 2 * net->stages; k++)
        ok = (s->rows[k] = floats(row_floats(net, k, width))) != NULL;
    return ok;
}

/* What `run` takes for a frame of that size, kept until another size comes. */
static size_t bytes(void *handle, int height, int width) {
    const network *net = handle;
    size_t own = line_floats(net, width);
    for (int k = 0; k < 2 * net->stages; k++)
        own += row_floats(net, k, width);
    return (4 * (size_t)height * (size_t)width * (size_t)net->features + (size_t)net->threads * own) * sizeof(float);
}

/* Maps for frames of that size; kept until another size comes. */
static int fit_maps(network *net, int height, int width) {
    if (net->height == height && net->width == width)
        return 1;
    clear_maps(net);
    size_t bands = (size_t)(height + TILE - 1) / TILE;
    net->sums = malloc(bands * (size_t)net->features * sizeof *net->sums);
    int ok = net->sums != NULL;
    for (int i = 0; ok && i < 4; i++)
        ok = (net->map[i] = floats((size_t)height * (size_t)width * (size_t)net->features)) != NULL;
    for (int i = 0; ok && i < net->threads; i++)
        ok = make_head_rows(net, &net->scratch[i], width);
    if (!ok) {
        clear_maps(net);
        return 0;
    }
    net->height = height;
    net->width = width;
    return 1;
}

static void do_pass(frame *f, a2n_task task, int bands) {
    memset(f->net->sums, 0, (size_t)((f->height + TILE - 1) / TILE) * (size_t)f->net->features * sizeof(double));
    a2n_pool_do(f->net->pool, task, f, bands);
}

static int run(void *handle, const float *rgb, float *result, int height, int width) {
    network *net = handle;
    if (!fit_maps(net, height, width))
        return -1;
    map m[4];
    for (int i = 0; i < 4; i++)
        m[i] = (map){net->map[i], 0, height, width, height, net->features};
    frame f = {net, rgb, result, height, width, 0, 0, 0, m[0], m[1], m[2], m[3]};
    int bands = (height + TILE - 1) / TILE, rows = head_rows(net);
    do_pass(&f, first_band, bands);
    for (f.number = 0; f.number < net->config.blocks; f.number++) {
        map read = f.next;
        f.next = f.inner;
        f.inner = read;
        set_gates(&f, bands);
        a2n_pool_do(net->pool, attend_band, &f, bands);
        do_pass(&f, mix_band, bands);
    }
    a2n_pool_do(net->pool, trunk_band, &f, bands);
    if (net->config.paper_head)
        a2n_pool_do(net->pool, head_band, &f, (height + rows - 1) / rows);
    else
        a2n_pool_do(net->pool, shuffle_band, &f, bands);
    return 0;
}

/* ------- from open to close */

static void close_network(void *handle) {
    network *net = handle;
    if (net->pool)
        a2n_pool_close(net->pool);
    clear_maps(net);
    for (int i = 0; i < net->owned_count; i++)
        free(net->owned[i]);
    free(net->owned);
    free(net);
}

static void make_scratch(network *net, scratch *s) {
    int factor = net->stages ? net->stage[0].factor : 1, widest = net->features;
    int inputs = net->config.features + net->features + LANES; /* of one pixel: `mix` reads two maps side by side */
    inputs = inputs > net->up ? inputs : net->up;
    int others[] = {net->up * factor * factor, net->shuffled.width, WINDOW};
    for (int i = 0; i < 3; i++)
        widest = others[i] > widest ? others[i] : widest;
    s->windows = owned_floats(net, (size_t)POSITIONS * MAX_TILES * (size_t)inputs);
    s->sums = owned_floats(net, (size_t)POSITIONS * MAX_TILES * (size_t)widest);
    for (int i = 0; i < 3; i++)
        s->pixels[i] = owned_floats(net, (size_t)TILE * STRETCH * (size_t)widest);
}

static void *open_network(const a2n_config *config, const float *const *weights, int threads) {
    network *net = calloc(1, sizeof *net);
    if (!net)
        return NULL;
    net->config = *config;
    net->features = PADDED(config->features);
    net->up = PADDED(config->up_features);
    net->stages = !config->paper_head ? 0 : config->scale == 4 ? 2 : 1;
    net->threads = threads;
    net->blocks = own(net, calloc((size_t)config->blocks, sizeof *net->blocks));
    net->scratch = own(net, calloc((size_t)threads, sizeof *net->scratch));
    if (!net->failed)
        read_weights(net, weights);
    for (int i = 0; i < threads && !net->failed; i++)
        make_scratch(net, &net->scratch[i]);
    if (!net->failed)
        net->pool = a2n_pool_open(threads);
    if (!net->failed && net->pool)
        return net;
    close_network(net);
    return NULL;
}

#define JOINED(a, b) a##b
#define NAMED(lanes) JOINED(a2n_build_, lanes)

extern const a2n_build NAMED(LANES);
const a2n_build NAMED(LANES) = {LANES, open_network, bytes, run, close_network};
