/* The network in C for processors: shared by the parts of this folder.
 *
 * Maps are float32, pixel after pixel (NHWC); a pixel's channels are filled up with zeros to whole vectors.
 */
#ifndef A2N_NATIVE_H
#define A2N_NATIVE_H

#include <stddef.h>

/* What a network is like, as in net/model.py. */
typedef struct {
    int scale, features, up_features, blocks, hidden;
    int paper_head; /* else one 3x3 convolution and PixelShuffle */
    float temperature;
} a2n_config;

/* One width of vectors, compiled from network.c. `weights`: the tensors in the order of `weights.h:read_weights`.
 * `bytes`: what `run` takes for a frame of a size. `run`: planar RGB (3, height, width) in 0..1 -> planar RGB
 * (3, scale*height, scale*width); 0, or -1 where memory ran out. */
typedef struct {
    int lanes;
    void *(*open)(const a2n_config *config, const float *const *weights, int threads);
    size_t (*bytes)(void *network, int height, int width);
    int (*run)(void *network, const float *rgb, float *result, int height, int width);
    void (*close)(void *network);
} a2n_build;

typedef struct a2n_pool a2n_pool;
typedef void (*a2n_task)(void *context, int item, int worker);

/* Threads that do numbered items, the caller among them. NULL where no thread can be had. */
a2n_pool *a2n_pool_open(int threads);
void a2n_pool_do(a2n_pool *pool, a2n_task task, void *context, int items);
void a2n_pool_close(a2n_pool *pool);

#endif
