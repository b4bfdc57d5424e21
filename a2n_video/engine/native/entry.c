/* What Python calls: the widest build that this processor runs. */
#include "native.h"

#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

extern const a2n_build a2n_build_4;
#if defined(__x86_64__)
extern const a2n_build a2n_build_8, a2n_build_16;
#endif

/* The build of `lanes` floats a vector, the widest that runs here for 0; NULL where there is none of that width. */
EXPORT const a2n_build *a2n_find_build(int lanes) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if ((lanes == 0 || lanes == 16) && __builtin_cpu_supports("avx512f"))
        return &a2n_build_16;
    if ((lanes == 0 || lanes == 8) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &a2n_build_8;
#endif
    return lanes == 0 || lanes == 4 ? &a2n_build_4 : NULL;
}

EXPORT int a2n_lanes(const a2n_build *build) { return build->lanes; }

EXPORT void *a2n_open(const a2n_build *build, const a2n_config *config, const float *const *weights, int threads) {
    return build->open(config, weights, threads);
}

EXPORT int a2n_run(const a2n_build *build, void *network, const float *rgb, float *result, int height, int width) {
    return build->run(network, rgb, result, height, width);
}

EXPORT void a2n_close(const a2n_build *build, void *network) { build->close(network); }
