/* A fixed team of threads: each takes the next item until none is left, and all have come back before a call returns. */
#include "native.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct a2n_pool {
    pthread_mutex_t lock;
    pthread_cond_t begun, ended;
    pthread_t *threads;
    int count, started; /* helpers beside the caller; those that run */
    unsigned round;
    int busy, closing;
    a2n_task task;
    void *context;
    int items;
    atomic_int next;
};

typedef struct {
    a2n_pool *pool;
    int number;
} seat;

static void take_items(a2n_pool *pool, int worker) {
    for (;;) {
        int item = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (item >= pool->items)
            return;
        pool->task(pool->context, item, worker);
    }
}

static void *helper(void *argument) {
    seat mine = *(seat *)argument;
    free(argument);
    a2n_pool *pool = mine.pool;
    unsigned seen = 0;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->round == seen && !pool->closing)
            pthread_cond_wait(&pool->begun, &pool->lock);
        if (pool->closing)
            break;
        seen = pool->round;
        pthread_mutex_unlock(&pool->lock);
        take_items(pool, mine.number);
        pthread_mutex_lock(&pool->lock);
        if (--pool->busy == 0)
            pthread_cond_signal(&pool->ended);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static int start_helper(a2n_pool *pool, int number) {
    seat *place = malloc(sizeof *place);
    if (!place)
        return -1;
    *place = (seat){pool, number};
    if (pthread_create(&pool->threads[number - 1], NULL, helper, place)) {
        free(place);
        return -1;
    }
    pool->started++;
    return 0;
}

a2n_pool *a2n_pool_open(int threads) {
    a2n_pool *pool = calloc(1, sizeof *pool);
    if (!pool)
        return NULL;
    pool->count = threads > 1 ? threads - 1 : 0;
    pool->threads = calloc((size_t)pool->count + 1, sizeof *pool->threads);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->begun, NULL);
    pthread_cond_init(&pool->ended, NULL);
    for (int i = 1; pool->threads && i <= pool->count; i++)
        if (start_helper(pool, i))
            break;
    if (!pool->threads || pool->started < pool->count) {
        a2n_pool_close(pool);
        return NULL;
    }
    return pool;
}

void a2n_pool_do(a2n_pool *pool, a2n_task task, void *context, int items) {
    pthread_mutex_lock(&pool->lock);
    pool->task = task;
    pool->context = context;
    pool->items = items;
    atomic_store(&pool->next, 0);
    pool->busy = pool->count;
    pool->round++;
    pthread_cond_broadcast(&pool->begun);
    pthread_mutex_unlock(&pool->lock);
    take_items(pool, 0);
    pthread_mutex_lock(&pool->lock);
    while (pool->busy)
        pthread_cond_wait(&pool->ended, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

void a2n_pool_close(a2n_pool *pool) {
    pthread_mutex_lock(&pool->lock);
    pool->closing = 1;
    pthread_cond_broadcast(&pool->begun);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->started; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->begun);
    pthread_cond_destroy(&pool->ended);
    free(pool->threads);
    free(pool);
}
