/* A host of VapourSynth without Python: loads the core library named first, calls a2n.Upscale, prints the error. */
#include <dlfcn.h>
#include <stdio.h>

#include "VapourSynth4.h"

static const VSAPI *open_api(const char *library) {
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    VSGetVapourSynthAPI get = handle ? (VSGetVapourSynthAPI)dlsym(handle, "getVapourSynthAPI") : NULL;
    return get ? get(VAPOURSYNTH_API_VERSION) : NULL;
}

static VSMap *blank(const VSAPI *vs, VSCore *core) {
    VSMap *args = vs->createMap();
    vs->mapSetInt(args, "length", 1, maReplace);
    return vs->invoke(vs->getPluginByNamespace("std", core), "BlankClip", args);
}

int main(int argc, char **argv) {
    const VSAPI *vs = argc == 2 ? open_api(argv[1]) : NULL;
    if (!vs)
        return 2;
    VSCore *core = vs->createCore(0);
    VSPlugin *a2n = vs->getPluginByNamespace("a2n", core);
    if (!a2n)
        return 3;
    const char *error = vs->mapGetError(vs->invoke(a2n, "Upscale", blank(vs, core)));
    printf("%s\n", error ? error : "no error");
    return 0;
}
