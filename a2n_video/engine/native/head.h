/* The head: the bilinear enlargement, and the network's correction of it. Included by network.c alone. */

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
