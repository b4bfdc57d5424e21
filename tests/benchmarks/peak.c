/* What these cores can do in bfloat16 at most: products in registers only, no memory. Prints GMAC/s of argv[1] threads, the best of a few. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 8000000, ACCUMULATORS = 16, PRODUCTS = 32, TRIES = 5, MAX_THREADS = 256 };

#define ONE(n) "vdpbf16ps %%zmm31, %%zmm30, %%zmm" #n "\n"

static void *run(void *unused) {
    for (long i = 0; i < ROUNDS; i++)
        __asm__ volatile(ONE(0) ONE(1) ONE(2) ONE(3) ONE(4) ONE(5) ONE(6) ONE(7) ONE(8) ONE(9) ONE(10) ONE(11) ONE(12) ONE(13) ONE(14) ONE(15)::
                             : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
                               "xmm14", "xmm15");
    return unused;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    double best = 0;
    pthread_t started[MAX_THREADS];
    for (int try = 0; try < TRIES && threads <= MAX_THREADS; try++) {
        double begin = seconds();
        for (int i = 0; i < threads; i++)
            pthread_create(&started[i], NULL, run, NULL);
        for (int i = 0; i < threads; i++)
            pthread_join(started[i], NULL);
        double rate = (double)threads * ROUNDS * ACCUMULATORS * PRODUCTS / (seconds() - begin) / 1e9;
        best = rate > best ? rate : best;
    }
    printf("%.1f\n", best);
    return 0;
}
