/* How a frame is gone through: bands of rows, stretches of tiles in them. Included by network.c alone. */

INLINE float *pixel(const map *m, int row, int column) {
    return m->data + ((size_t)(row - m->first) * (size_t)m->width + (size_t)column) * (size_t)m->channels;
}

static int smaller(int a, int b) { return a < b ? a : b; }

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
