/* The Python C API by name, so that one build serves every Python and a host without one gets a sentence instead of a loader error. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "a2n.h"

static struct {
    int (*IsInitialized)(void);
    int (*GILState_Ensure)(void);
    void (*GILState_Release)(int);
    int (*GILState_Check)(void);
    void *(*GILState_GetThisThreadState)(void);
    void *(*SaveThread)(void);
    PyObject *(*ImportModule)(const char *);
    PyObject *(*CallMethod)(PyObject *, const char *, const char *, ...);
    PyObject *(*CallFunction)(PyObject *, const char *, ...);
    PyObject *(*GetAttrString)(PyObject *, const char *);
    PyObject *(*Str)(PyObject *);
    const char *(*AsUTF8)(PyObject *);
    long long (*AsLongLong)(PyObject *);
    PyObject *(*Occurred)(void);
    void (*Fetch)(PyObject **, PyObject **, PyObject **);
    void (*Normalize)(PyObject **, PyObject **, PyObject **);
    void (*Clear)(void);
    void (*DecRef)(PyObject *);
} py;

static const struct {
    const char *name;
    void *slot;
} SYMBOLS[] = {
    {"Py_IsInitialized", &py.IsInitialized},
    {"PyGILState_Ensure", &py.GILState_Ensure},
    {"PyGILState_Release", &py.GILState_Release},
    {"PyGILState_Check", &py.GILState_Check},
    {"PyGILState_GetThisThreadState", &py.GILState_GetThisThreadState},
    {"PyEval_SaveThread", &py.SaveThread},
    {"PyImport_ImportModule", &py.ImportModule},
    {"PyObject_CallMethod", &py.CallMethod},
    {"PyObject_CallFunction", &py.CallFunction},
    {"PyObject_GetAttrString", &py.GetAttrString},
    {"PyObject_Str", &py.Str},
    {"PyUnicode_AsUTF8", &py.AsUTF8},
    {"PyLong_AsLongLong", &py.AsLongLong},
    {"PyErr_Occurred", &py.Occurred},
    {"PyErr_Fetch", &py.Fetch},
    {"PyErr_NormalizeException", &py.Normalize},
    {"PyErr_Clear", &py.Clear},
    {"Py_DecRef", &py.DecRef},
};

static pthread_once_t looked_up = PTHREAD_ONCE_INIT;
static int found;

/* VapourSynth unloads a plugin with its last core, while Python's atexit still holds the gate's address, and a thread may still be
   closing a filter: stay until the process ends. */
static void stay_loaded(void) {
    Dl_info self;
    if (dladdr(&looked_up, &self))
        dlopen(self.dli_fname, RTLD_NOW | RTLD_NODELETE);
}

static void look_up(void) {
    stay_loaded();
    for (size_t i = 0; i < sizeof SYMBOLS / sizeof *SYMBOLS; i++) {
        void *symbol = dlsym(RTLD_DEFAULT, SYMBOLS[i].name);
        if (!symbol)
            return;
        memcpy(SYMBOLS[i].slot, &symbol, sizeof symbol);
    }
    found = 1;
}

/* The gate: once it is closed nobody enters Python any more. A thread that waits for the GIL of an ending interpreter is
   ended or hung by it, with VapourSynth's locks in its hands; so the interpreter's atexit closes the gate first. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_empty = PTHREAD_COND_INITIALIZER;
static int inside, closed;

/* Called from Python's atexit without the GIL: returns when no thread of ours is in Python or on its way there. */
static void gate_close(void) {
    pthread_mutex_lock(&gate);
    closed = 1;
    while (inside)
        pthread_cond_wait(&gate_empty, &gate);
    pthread_mutex_unlock(&gate);
}

static int gate_enter(void) {
    pthread_mutex_lock(&gate);
    int open = !closed;
    inside += open;
    pthread_mutex_unlock(&gate);
    return open;
}

static void gate_leave(void) {
    pthread_mutex_lock(&gate);
    if (--inside == 0)
        pthread_cond_broadcast(&gate_empty);
    pthread_mutex_unlock(&gate);
}

static _Thread_local int pinned;
static _Thread_local int gil_state;

/* Keep one thread state for this worker's life, else thread-locals (torch's among them) would be new in each call.
   It is never given back: a worker ends while the core is freed, and who frees the core may hold the GIL. */
static void pin_thread_state(void) {
    if (pinned || py.GILState_GetThisThreadState())
        return;
    py.GILState_Ensure();
    py.SaveThread();
    pinned = 1;
}

/* Take the GIL; 0 and a sentence where there is no Python to enter. Hold no lock here that a holder of the GIL may want. */
int python_enter(char error[A2N_ERROR_SIZE]) {
    pthread_once(&looked_up, look_up);
    if (!found || !py.IsInitialized()) {
        snprintf(error, A2N_ERROR_SIZE, "this host runs no Python, and the engine is a Python package; use vspipe, an editor or a player that runs Python scripts");
        return 0;
    }
    if (!gate_enter()) {
        snprintf(error, A2N_ERROR_SIZE, "Python is ending");
        return 0;
    }
    pin_thread_state();
    gil_state = py.GILState_Ensure();
    return 1;
}

void python_leave(void) {
    py.GILState_Release(gil_state);
    gate_leave();
}

static int inside_character(char byte) {
    return ((unsigned char)byte & 0xC0) == 0x80;
}

/* UTF-8 in `size` bytes: of what is longer its beginning and its end, in whole characters. A path stands first, the reason last. */
static void shorten(const char *from, char *to, size_t size) {
    static const char gap[] = " ... ";
    size_t length = strlen(from);
    if (length < size) {
        memcpy(to, from, length + 1);
        return;
    }
    size_t head = (size - sizeof gap) / 2, tail = length - (size - sizeof gap - head);
    while (head && inside_character(from[head]))
        head--;
    while (inside_character(from[tail]))
        tail++;
    memcpy(to, from, head);
    memcpy(to + head, gap, sizeof gap - 1);
    memcpy(to + head + sizeof gap - 1, from + tail, length - tail + 1);
}

static void copy_text(PyObject *object, char *text, size_t size) {
    PyObject *string = object ? py.Str(object) : NULL;
    const char *utf8 = string ? py.AsUTF8(string) : NULL;
    shorten(utf8 ? utf8 : "?", text, size);
    if (string)
        py.DecRef(string);
    py.Clear();
}

static void copy_attribute(PyObject *object, const char *name, char *text, size_t size) {
    PyObject *attribute = py.GetAttrString(object, name);
    copy_text(attribute, text, size);
    if (attribute)
        py.DecRef(attribute);
}

/* The pending exception as a sentence: errors of our own tree speak for themselves, any other is named. */
static void take_exception(char error[A2N_ERROR_SIZE]) {
    PyObject *type = NULL, *value = NULL, *trace = NULL;
    char module[64] = "", name[64] = "", text[A2N_ERROR_SIZE - 80] = "";
    py.Fetch(&type, &value, &trace);
    py.Normalize(&type, &value, &trace);
    if (type) {
        copy_attribute(type, "__module__", module, sizeof module);
        copy_attribute(type, "__name__", name, sizeof name);
    }
    copy_text(value, text, sizeof text);
    if (strcmp(module, "a2n_video.errors") == 0)
        snprintf(error, A2N_ERROR_SIZE, "%s", text);
    else
        snprintf(error, A2N_ERROR_SIZE, "%s: %s", name, text);
    PyObject *taken[] = {type, value, trace};
    for (int i = 0; i < 3; i++)
        if (taken[i])
            py.DecRef(taken[i]);
}

/* The Python object behind a new filter, or NULL and why. With the GIL. */
PyObject *python_open(const A2NRequest *r, const VSVideoInfo *vi, char error[A2N_ERROR_SIZE]) {
    PyObject *module = py.ImportModule("a2n_video.vs_engine");
    if (!module) {
        char why[A2N_ERROR_SIZE], brief[300];
        take_exception(why);
        shorten(why, brief, sizeof brief);
        snprintf(error, A2N_ERROR_SIZE, "the Python of this host cannot import a2n_video (%s); install a2n-video into that Python", brief);
        return NULL;
    }
    const VSVideoFormat *f = &vi->format;
    PyObject *filter = py.CallMethod(
        module, "open_filter", "((iiiiiii)(izzzzii)K)", f->colorFamily, f->sampleType, f->bitsPerSample, f->subSamplingW, f->subSamplingH,
        vi->width, vi->height, r->scale, r->model, r->weights, r->device, r->dtype, r->batch_size, r->num_streams,
        (unsigned long long)(uintptr_t)gate_close);
    py.DecRef(module);
    if (!filter)
        take_exception(error);
    return filter;
}

/* An int attribute of the filter, or -1 and why. With the GIL. */
int python_number(PyObject *filter, const char *name, char error[A2N_ERROR_SIZE]) {
    PyObject *attribute = py.GetAttrString(filter, name);
    long long number = attribute ? py.AsLongLong(attribute) : -1;
    if (attribute)
        py.DecRef(attribute);
    if (py.Occurred())
        take_exception(error);
    return (int)number;
}

/* Start a group: the sources are read before this returns, the results are written before python_finish does. With the GIL. */
PyObject *python_submit(PyObject *filter, A2NFrame *frames, int count, char error[A2N_ERROR_SIZE]) {
    PyObject *ticket = py.CallMethod(filter, "submit", "Ki", (unsigned long long)(uintptr_t)frames, count);
    if (!ticket)
        take_exception(error);
    return ticket;
}

/* The number that a call answered, or -1 and why it failed. */
static int64_t taken_number(PyObject *answer, char error[A2N_ERROR_SIZE]) {
    if (!answer) {
        take_exception(error);
        return -1;
    }
    int64_t number = py.AsLongLong(answer);
    py.DecRef(answer);
    return number;
}

/* Wait for a group's results; the nanoseconds that the engine itself took, or -1 and why. With the GIL. */
int64_t python_finish(PyObject *filter, PyObject *ticket, char error[A2N_ERROR_SIZE]) {
    return taken_number(py.CallMethod(filter, "finish", "(O)", ticket), error);
}

/* Both at once: the sources are read and the results written before this returns. As python_finish. With the GIL. */
int64_t python_upscale(PyObject *filter, A2NFrame *frames, int count, char error[A2N_ERROR_SIZE]) {
    return taken_number(py.CallFunction(filter, "Ki", (unsigned long long)(uintptr_t)frames, count), error);
}

/* Let a reference go. With the GIL. */
void python_drop(PyObject *object) {
    if (object)
        py.DecRef(object);
}

typedef struct {
    PyObject *filter;
    void (*then)(void *, int);
    void *context;
} Closing;

static int close_filter(PyObject *filter) {
    char error[A2N_ERROR_SIZE];
    if (!python_enter(error))
        return 0; /* the interpreter is gone or going, and its objects with it */
    PyObject *answer = py.CallMethod(filter, "close", NULL);
    if (!answer)
        py.Clear();
    python_drop(answer);
    python_drop(filter);
    python_leave();
    return 1;
}

static void *close_and_go_on(void *data) {
    Closing closing = *(Closing *)data;
    free(data);
    closing.then(closing.context, close_filter(closing.filter));
    return NULL;
}

/* End a filter, from any thread, then call `then`, which learns whether the engine has stopped. A worker of VapourSynth may free
   a node under the pool's lock, which a holder of the GIL may want: there another thread does it. A thread that Python knows
   (the script's own) waits for it here. */
void python_close(PyObject *filter, void (*then)(void *, int closed), void *context) {
    pthread_t thread;
    Closing *closing = malloc(sizeof *closing);
    if (!closing)
        return;
    *closing = (Closing){filter, then, context};
    if (!pinned && py.GILState_GetThisThreadState())
        close_and_go_on(closing);
    else if (pthread_create(&thread, NULL, close_and_go_on, closing) == 0)
        pthread_detach(thread);
}
