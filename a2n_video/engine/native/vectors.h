/* Vectors of LANES floats, and the products of matrices that everything else is made of. Included by network.c alone. */
#include <stdint.h>
#include <string.h>

#ifndef LANES
#error "LANES is the number of floats in a vector: 4, 8 or 16"
#endif

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define PADDED(n) (((n) + LANES - 1) / LANES * LANES)

INLINE vec load(const float *p) { return *(const vec *)p; }
INLINE void store(float *p, vec x) { *(vec *)p = x; }
INLINE vec splat(float x) { return x - (vec){0}; }

/* `a` where the mask is set, else `b`. */
INLINE vec pick(ivec mask, vec a, vec b) { return (vec)(((ivec)a & mask) | ((ivec)b & ~mask)); }

INLINE vec lrelu(vec x) { return pick((ivec)(x > 0), x, x * 0.2f); }

/* exp(x), x held in -87..88, good to 2e-7: 2^n * e^r with |r| <= ln(2)/2, e^r by its series. Not a number stays so. */
INLINE vec exponential(vec x) {
    x = pick((ivec)(x < splat(-87.0f)), splat(-87.0f), x);
    x = pick((ivec)(x > splat(88.0f)), splat(88.0f), x);
    const float magic = 12582912.0f; /* 1.5 * 2^23: a sum with it is rounded to an integer, in its lowest bits */
    vec t = x * 1.44269504f + magic;
    vec n = t - magic;
    vec r = x - n * 0.693359375f + n * 2.12194440e-4f;
    vec p = 1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
    ivec power = ((ivec)t - (ivec)splat(magic) + 127) << 23;
    return p * (vec)power;
}

INLINE vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }

/* Holds a value in a register: left alone, compilers load it anew for each product, and loads are what runs out first. */
#if defined(__x86_64__)
#define KEEP(x) __asm__("" : "+v"(x))
#elif defined(__aarch64__)
#define KEEP(x) __asm__("" : "+w"(x))
#else
#define KEEP(x) (void)(x)
#endif

/* R rows of a (lda apart) of K values times K rows of b (ldb apart), N vectors wide, onto R rows of c (ldc apart). */
#define KERNEL(R, N)                                                                                                    \
    INLINE void product_##R##x##N(const float *a, size_t lda, const float *b, size_t ldb, int k, float *c, size_t ldc) { \
        vec sum[R][N];                                                                                                  \
        for (int r = 0; r < R; r++)                                                                                     \
            for (int n = 0; n < N; n++)                                                                                 \
                sum[r][n] = (vec){0};                                                                                   \
        for (int i = 0; i < k; i++) {                                                                                   \
            vec row[N];                                                                                                 \
            for (int n = 0; n < N; n++) {                                                                               \
                row[n] = load(b + i * ldb + n * LANES);                                                                 \
                KEEP(row[n]);                                                                                           \
            }                                                                                                           \
            for (int r = 0; r < R; r++)                                                                                 \
                for (int n = 0; n < N; n++)                                                                             \
                    sum[r][n] += a[r * lda + i] * row[n];                                                               \
        }                                                                                                               \
        for (int r = 0; r < R; r++)                                                                                     \
            for (int n = 0; n < N; n++)                                                                                 \
                store(c + r * ldc + n * LANES, sum[r][n]);                                                              \
    }

#define PRODUCT(R, N)                                                              \
    {                                                                              \
        int r = 0;                                                                 \
        for (; r + R <= rows; r += R)                                              \
            product_##R##x##N(a + r * lda, lda, b, ldb, k, c + r * ldc, ldc);      \
        for (; r < rows; r++)                                                      \
            product_1x##N(a + r * lda, lda, b, ldb, k, c + r * ldc, ldc);          \
    }

/* As many sums at once as the registers hold: 16 of them, or 32 with vectors of 16 (and on ARM). */
#if LANES == 16 || defined(__aarch64__)
#define TALL5 4
#define TALL3 8
#define TALL2 12
#define TALL1 16
#else
#define TALL5 2
#define TALL3 4
#define TALL2 6
#define TALL1 8
#endif
#define KERNEL_(R, N) KERNEL(R, N)
#define PRODUCT_(R, N) PRODUCT(R, N)

KERNEL(1, 5)
KERNEL(1, 3)
KERNEL(1, 2)
KERNEL(1, 1)
KERNEL_(TALL5, 5)
KERNEL_(TALL3, 3)
KERNEL_(TALL2, 2)
KERNEL_(TALL1, 1)

/* c (rows x width, ldc apart) = a (rows x k, lda apart) times b (k x width, width apart). `width` is whole vectors. */
static void multiply(const float *a, size_t lda, const float *b, int rows, int k, int width, float *c, size_t ldc) {
    size_t ldb = (size_t)width;
    for (int left = width / LANES; left > 0;) {
        int wide = left >= 5 && left != 6 ? 5 : left >= 3 ? 3 : left;
        if (wide == 5)
            PRODUCT_(TALL5, 5)
        else if (wide == 3)
            PRODUCT_(TALL3, 3)
        else if (wide == 2)
            PRODUCT_(TALL2, 2)
        else
            PRODUCT_(TALL1, 1)
        left -= wide;
        b += wide * LANES;
        c += wide * LANES;
    }
}
