/* What Python calls: the build that this processor runs fastest. */
#include "native.h"

#include <stdlib.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define EXPORT __attribute__((visibility("default")))

extern const a2n_build a2n_build_4;
#if defined(__x86_64__)
extern const a2n_build a2n_build_8, a2n_build_16;

/* AMD's first processors with AVX-512 (family 19h, Zen 4) do its vectors in two halves: no faster than vectors of 8, of which 40 channels
 * fill five, where of 16 they take three. Measured: 1.20 against 1.42 s a frame. */
static int does_halves(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__builtin_cpu_is("amd") || !__get_cpuid(1, &a, &b, &c, &d))
        return 0;
    unsigned family = a >> 8 & 0xf;
    return (family == 0xf ? family + (a >> 20 & 0xff) : family) == 0x19;
}
#endif

/* The build of `lanes` floats a vector, the fastest that runs here for 0; NULL where there is none of that width. */
EXPORT const a2n_build *a2n_find_build(int lanes) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if ((lanes == 16 || (lanes == 0 && !does_halves())) && __builtin_cpu_supports("avx512f"))
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

EXPORT size_t a2n_bytes(const a2n_build *build, void *network, int height, int width) { return build->bytes(network, height, width); }

EXPORT int a2n_run(const a2n_build *build, void *network, const float *rgb, float *result, int height, int width) {
    return build->run(network, rgb, result, height, width);
}

EXPORT void a2n_close(const a2n_build *build, void *network) { build->close(network); }
