/* 3x3 convolutions by Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308): 36 products for the 144 of a 4x4 tile.
 * The interpolation points are 0, 1, -1, 2, -2 and infinity; in float32 a result is off by about 1e-6 of the largest. */

enum { POSITIONS = 36, TILE = 4, MAX_TILES = 24 };

/* Rows first .. first + rows of a map `width` wide and `height` high in all; what lies outside the frame is zero. */
typedef struct {
    float *data;
    int first, rows, width, height, channels; /* channels filled up */
} map;

/* A convolution's weights: products[p] is (inputs x width), transformed; `bias` has `width` values or is NULL. */
typedef struct {
    int inputs, width;
    float *products, *bias;
} conv3;

static const double FROM_TAPS[6][3] = {{1 / 4., 0, 0},
                                       {-1 / 6., -1 / 6., -1 / 6.},
                                       {-1 / 6., 1 / 6., -1 / 6.},
                                       {1 / 24., 1 / 12., 1 / 6.},
                                       {1 / 24., -1 / 12., 1 / 6.},
                                       {0, 0, 1}};

/* Put one 3x3 kernel where input `in` meets output column `out`, for all positions. */
static void transform_kernel(conv3 *c, int in, int out, const double taps[3][3]) {
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++) {
            double sum = 0;
            for (int y = 0; y < 3; y++)
                for (int x = 0; x < 3; x++)
                    sum += FROM_TAPS[i][y] * FROM_TAPS[j][x] * taps[y][x];
            c->products[((size_t)(i * 6 + j) * (size_t)c->inputs + (size_t)in) * (size_t)c->width + (size_t)out] = (float)sum;
        }
}

INLINE void input_column(const vec d[6], vec out[6]) {
    vec even = d[4] - 4.0f * d[2], odd = d[3] - 4.0f * d[1], near = d[4] - d[2], far = 2.0f * (d[3] - d[1]);
    out[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
    out[1] = even + odd;
    out[2] = even - odd;
    out[3] = near + far;
    out[4] = near - far;
    out[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}

INLINE void output_column(const vec m[6], vec out[4]) {
    vec a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
    out[0] = m[0] + a + c;
    out[1] = b + 2.0f * d;
    out[2] = a + 4.0f * c;
    out[3] = b + 8.0f * d + m[5];
}

/* One column of a window, six rows from `top` on, transformed downwards; what lies outside is zero. */
INLINE void window_column(const map *m, int top, int column, int c, vec half[6][6], int x) {
    vec in[6], out[6];
    int low = m->first > 0 ? m->first : 0, high = m->first + m->rows < m->height ? m->first + m->rows : m->height;
    size_t step = (size_t)m->width * (size_t)m->channels;
    const float *p = m->data + (ptrdiff_t)(top - m->first) * (ptrdiff_t)step + (ptrdiff_t)column * m->channels + c;
    if (column >= 0 && column < m->width && top >= low && top + 6 <= high)
        for (int y = 0; y < 6; y++)
            in[y] = load(p + (size_t)y * step);
    else
        for (int y = 0; y < 6; y++)
            in[y] = column >= 0 && column < m->width && top + y >= low && top + y < high ? load(p + (size_t)y * step) : (vec){0};
    input_column(in, out);
    for (int y = 0; y < 6; y++)
        half[y][x] = out[y];
}

/* The transformed 6x6 windows of `tiles` tiles to the right of (row, column), to out[position][tile][stride].
 * Whole vectors are written: what lies behind the last channel is overwritten. Neighbours share two columns. */
static void transform_input(const map *m, int row, int column, int tiles, float *out, int stride) {
    for (int c = 0; c < m->channels; c += LANES) {
        vec half[6][6];
        window_column(m, row - 1, column - 1, c, half, 4);
        window_column(m, row - 1, column, c, half, 5);
        for (int t = 0; t < tiles; t++) {
            for (int y = 0; y < 6; y++) {
                half[y][0] = half[y][4];
                half[y][1] = half[y][5];
            }
            for (int x = 2; x < 6; x++)
                window_column(m, row - 1, column + t * TILE + x - 1, c, half, x);
            for (int y = 0; y < 6; y++) {
                vec line[6];
                input_column(half[y], line);
                for (int x = 0; x < 6; x++)
                    store(out + ((size_t)(y * 6 + x) * MAX_TILES + (size_t)t) * (size_t)stride + c, line[x]);
            }
        }
    }
}

/* Up to three parts of maps, rows of whole cache lines, that are read or written soon. */
typedef struct {
    struct {
        const char *data;
        size_t lines, step;
        int rows;
    } part[3];
    int count;
} ahead;

enum { CACHE_LINE = 64 };

/* Add rows and columns of a map, as far as they lie in it. */
static void add_ahead(ahead *a, const map *m, int row, int rows, int column, int columns) {
    int low = row < m->first ? m->first : row, high = row + rows < m->first + m->rows ? row + rows : m->first + m->rows;
    columns = columns < m->width - column ? columns : m->width - column;
    if (high <= low || columns <= 0)
        return;
    size_t pixel = (size_t)m->channels * sizeof(float), step = (size_t)m->width * pixel;
    a->part[a->count].data = (const char *)m->data + (size_t)(low - m->first) * step + (size_t)column * pixel;
    a->part[a->count].lines = (size_t)columns * pixel / CACHE_LINE + 1;
    a->part[a->count].step = step;
    a->part[a->count++].rows = high - low;
}

/* One of POSITIONS shares of it, into the second cache. */
INLINE void fetch_share(const ahead *a, size_t share) {
    for (int i = 0; i < a->count; i++) {
        size_t lines = a->part[i].lines, all = lines * (size_t)a->part[i].rows;
        for (size_t at = all * share / POSITIONS; at < all * (share + 1) / POSITIONS; at++)
            __builtin_prefetch(a->part[i].data + at / lines * a->part[i].step + at % lines * CACHE_LINE, 0, 2);
    }
}

/* Transformed windows times the weights: in[position][tile][stride] -> sums[position][tile][width]. What is needed next is fetched
 * meanwhile, a little at each position: the maps are larger than caches, and products leave memory idle. */
static void multiply_positions(const conv3 *c, const float *in, int stride, int tiles, float *sums, const ahead *next) {
    for (size_t p = 0; p < POSITIONS; p++) {
        fetch_share(next, p);
        multiply(in + p * MAX_TILES * (size_t)stride, (size_t)stride, c->products + p * (size_t)c->inputs * (size_t)c->width, tiles,
                 c->inputs, c->width, sums + p * MAX_TILES * (size_t)c->width, (size_t)c->width);
    }
}

/* sums -> pixels[4][tiles * 4][width], rows MAX_TILES * 4 pixels apart, with the bias, through lrelu where asked. */
static void transform_output(const conv3 *c, const float *sums, int tiles, int activate, float *pixels) {
    size_t width = (size_t)c->width;
    for (int t = 0; t < tiles; t++)
        for (size_t n = 0; n < width; n += LANES) {
            vec half[4][6], bias = c->bias ? load(c->bias + n) : (vec){0};
            for (int x = 0; x < 6; x++) {
                vec column_in[6], column_out[4];
                for (int y = 0; y < 6; y++)
                    column_in[y] = load(sums + ((size_t)(y * 6 + x) * MAX_TILES + (size_t)t) * width + n);
                output_column(column_in, column_out);
                for (int y = 0; y < 4; y++)
                    half[y][x] = column_out[y];
            }
            for (int y = 0; y < 4; y++) {
                vec line[4];
                output_column(half[y], line);
                for (int x = 0; x < 4; x++) {
                    vec value = line[x] + bias;
                    store(pixels + ((size_t)(y * MAX_TILES + t) * TILE + (size_t)x) * width + n, activate ? lrelu(value) : value);
                }
            }
        }
}
