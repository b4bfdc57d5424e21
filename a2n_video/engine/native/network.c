/* A2N (net/model.py) for one width of vectors: every block in two passes over bands of rows, each band on one thread.
 *
 * Pass `attend` makes the attended map, pass `mix` the block's result and, while its rows are at hand, what the next block's branches
 * and gates read. The gates need a mean over the whole frame, so a pass ends on all bands before the next begins. A band's
 * arithmetic does not depend on which thread does it, and sums are added up in the order of bands: results are the same for any
 * number of threads. The head's rows live only in a band's own buffers.
 */
#include "weights.h"
#include "bands.h"
#include "head.h"

#include <math.h>

#define MOST_ODDS 0x1p64 /* as in net/fuse.py */

/* ------- the passes */

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
    odds = odds > MOST_ODDS ? MOST_ODDS : odds; /* what is no number stays none */
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
