/* The stand-in's part of libcuda.so.1 that the encoder bindings and pinned-memory code use (see
 * knobs.h): devices, contexts, streams. Streams run each command at once (but see STANDIN_LATE),
 * and there are no kernels. What it is strict about: cuInit first, a current context for memory
 * calls, live contexts, device pointers only where they belong and never past their allocation. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cuda.h"

static const struct { int code; const char *name; } errors[] = {
    {OK, "CUDA_SUCCESS"}, {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"}, {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"}, {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"}, {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
    {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"}, {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
    {ALREADY_REGISTERED, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED"},
    {NOT_REGISTERED, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED"}, {UNKNOWN, "CUDA_ERROR_UNKNOWN"}};

API int cuGetErrorName(int code, const char **out)
{
    *out = NULL;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i].code == code) *out = errors[i].name;
    return *out ? OK : INVALID_VALUE;
}

API int cuGetErrorString(int code, const char **out) { return cuGetErrorName(code, out); }

/* ---- devices and contexts ------------------------------------------------------------------- */

enum { MAX_GPUS = 16, MAX_CONTEXTS = 1024, MAX_DEPTH = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;    /* guards contexts */
static Context contexts[MAX_CONTEXTS];                      /* the first ones: primary contexts */
static _Thread_local Context *stack[MAX_DEPTH];             /* each thread's own, as in CUDA */
static _Thread_local int depth;
atomic_int cuda_is_initialized;

static int visible[MAX_GPUS], visible_count;                /* which devices this process sees */

Context *cuda_current(void) { return depth ? stack[depth - 1] : NULL; }

int cuda_usable(void)
{
    return !cuda_is_initialized ? NOT_INITIALIZED : !depth ? INVALID_CONTEXT : OK;
}

#define ON_DEVICE(d)                                                                             \
    do { READY(); if (d < 0 || d >= visible_count) return INVALID_DEVICE; } while (0)

int cuda_context_device(const void *context) { return visible[((const Context *)context)->device]; }

int cuda_context_alive(const void *context)
{
    const Context *c = context;
    return c >= contexts && c < contexts + MAX_CONTEXTS && c->users > 0;
}

static void uuid_of(int gpu, CUuuid *out) { memset(out, 0xA0 + gpu, sizeof *out); }

static int is_named(int gpu, const char *name, size_t size)  /* by its number or as GPU-uuid */
{
    char number[12], uuid[41];
    int b = 0xA0 + gpu;
    snprintf(number, sizeof number, "%d", gpu);
    snprintf(uuid, sizeof uuid, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             b, b, b, b, b, b, b, b, b, b, b, b, b, b, b, b);
    return (size == strlen(number) && !strncmp(name, number, size)) ||
           (size == strlen(uuid) && !strncmp(name, uuid, size));
}

/* CUDA_VISIBLE_DEVICES, read once: its devices in its order, up to the first that does not exist. */
static void look_around(void)
{
    int gpus = (int)knob("STANDIN_GPUS", 1), found = 1;
    const char *names = getenv("CUDA_VISIBLE_DEVICES");
    if (gpus > MAX_GPUS) gpus = MAX_GPUS;
    visible_count = 0;
    for (int gpu = 0; !names && gpu < gpus; gpu++) visible[visible_count++] = gpu;
    for (const char *at = names; at && *at && found && visible_count < MAX_GPUS; at += strcspn(at, ","), at += *at == ',') {
        found = 0;
        for (int gpu = 0; gpu < gpus && !found; gpu++)
            if ((found = is_named(gpu, at, strcspn(at, ",")))) visible[visible_count++] = gpu;
    }
}

API int cuInit(unsigned flags)
{
    ENTER();
    if (flags) return INVALID_VALUE;
    pthread_mutex_lock(&lock);
    if (!cuda_is_initialized) look_around();
    cuda_is_initialized = visible_count > 0;
    pthread_mutex_unlock(&lock);
    return visible_count ? OK : NO_DEVICE;
}

API int cuDriverGetVersion(int *v) { ENTER(); *v = (int)knob("STANDIN_CUDA", 12080); return OK; }
API int cuDeviceGetCount(int *count) { READY(); *count = visible_count; return OK; }
API int cuDeviceGet(CUdevice *device, int i) { ON_DEVICE(i); *device = i; return OK; }

API int cuDeviceGetName(char *name, int size, CUdevice device)
{
    ON_DEVICE(device);
    const char *chosen = getenv("STANDIN_NAME");
    if (chosen && *chosen) snprintf(name, (size_t)size, "%s", chosen);
    else snprintf(name, (size_t)size, "software stand-in %d", visible[device]);
    return OK;
}

API int cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
    ON_DEVICE(device);
    *major = 8, *minor = 9;
    return OK;
}

API int cuDeviceGetUuid(CUuuid *out, CUdevice device)
{
    ON_DEVICE(device);
    uuid_of(visible[device], out);
    return OK;
}

API int cuDeviceGetUuid_v2(CUuuid *out, CUdevice device) { return cuDeviceGetUuid(out, device); }

API int cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    ON_DEVICE(device);
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = 8; break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = 9; break;
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY: case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: *value = 1; break;
    default: *value = 0;
    }
    return OK;
}

static int push(CUcontext context)
{
    if (!cuda_context_alive(context)) return INVALID_CONTEXT;
    if (depth == MAX_DEPTH) return OUT_OF_MEMORY;
    stack[depth++] = (Context *)context;
    return OK;
}

API int cuCtxCreate_v2(CUcontext *out, unsigned flags, CUdevice device)
{
    ON_DEVICE(device);
    pthread_mutex_lock(&lock);
    Context *c = contexts + MAX_GPUS, *end = contexts + MAX_CONTEXTS;
    while (c < end && c->users) c++;
    if (c < end) *c = (Context){device, 1};
    pthread_mutex_unlock(&lock);
    if (c == end) return OUT_OF_MEMORY;
    COUNT(contexts_created, 1);
    return push(*out = (CUcontext)c);
}

API int cuCtxDestroy_v2(CUcontext context)
{
    READY();
    Context *c = (Context *)context;
    if (!cuda_context_alive(c) || c < contexts + MAX_GPUS) return INVALID_CONTEXT;
    if (cuda_current() == c) depth--;
    c->users = 0;
    COUNT(contexts_destroyed, 1);
    return OK;
}

API int cuCtxPushCurrent_v2(CUcontext context) { READY(); return push(context); }

API int cuCtxPopCurrent_v2(CUcontext *out)
{
    READY();
    if (!depth) return INVALID_CONTEXT;
    Context *top = stack[--depth];
    if (out) *out = (CUcontext)top;
    return OK;
}

API int cuCtxSetCurrent(CUcontext context)
{
    READY();
    if (context && !cuda_context_alive(context)) return INVALID_CONTEXT;
    if (depth) depth--;
    return context ? push(context) : OK;
}

API int cuCtxGetCurrent(CUcontext *out) { READY(); *out = (CUcontext)cuda_current(); return OK; }
API int cuCtxGetDevice(CUdevice *device) { IN_CONTEXT(); *device = cuda_current()->device; return OK; }
API int cuCtxSynchronize(void) { IN_CONTEXT(); cuda_finish_copies(); return OK; }

static int use_primary(CUdevice device, int by)
{
    pthread_mutex_lock(&lock);
    int users = contexts[device].users + by;
    if (users >= 0) contexts[device] = (Context){device, users};
    pthread_mutex_unlock(&lock);
    return users >= 0 ? OK : INVALID_CONTEXT;
}

API int cuDevicePrimaryCtxRetain(CUcontext *out, CUdevice device)
{
    ON_DEVICE(device);
    *out = (CUcontext)&contexts[device];
    return use_primary(device, 1);
}

API int cuDevicePrimaryCtxRelease_v2(CUdevice d) { ON_DEVICE(d); return use_primary(d, -1); }

/* ---- streams and events: nothing is ever pending, but for late copies ------------------------ */

API int cuStreamCreate(CUstream *stream, unsigned flags)
{
    IN_CONTEXT();
    Context **made_in = malloc(sizeof *made_in);
    *made_in = cuda_current();
    *stream = (CUstream)made_in;
    return OK;
}

API int cuStreamDestroy_v2(CUstream stream)
{
    READY();
    cuda_finish_copies();
    free(stream);
    return OK;
}

API int cuStreamGetCtx(CUstream stream, CUcontext *out)
{
    READY();
    int own = (uintptr_t)stream > 2;                        /* not one of the default streams */
    *out = (CUcontext)(own ? *(Context **)stream : cuda_current());
    return OK;
}

API int cuStreamSynchronize(CUstream s) { READY(); cuda_finish_copies(); return OK; }
API int cuStreamWaitEvent(CUstream s, CUevent e, unsigned flags) { READY(); return OK; }
API int cuEventCreate(CUevent *e, unsigned flags) { IN_CONTEXT(); *e = malloc(1); return OK; }
API int cuEventDestroy_v2(CUevent e) { READY(); free(e); return OK; }
API int cuEventRecord(CUevent e, CUstream s) { READY(); return OK; }
API int cuEventSynchronize(CUevent e) { READY(); cuda_finish_copies(); return OK; }

/* ---- what ffmpeg looks up before it begins, and never calls to encode ------------------------- */

#define ABSENT(name) API int name(void) { ENTER(); return NOT_SUPPORTED; }
ABSENT(cuCtxSetLimit) ABSENT(cuMemAllocManaged) ABSENT(cuMemsetD8Async) ABSENT(cuMemcpy) ABSENT(cuMemcpyAsync)
ABSENT(cuMemcpyHtoDAsync_v2) ABSENT(cuMemcpyDtoD_v2) ABSENT(cuMemcpyDtoDAsync_v2) ABSENT(cuDevicePrimaryCtxRelease)
ABSENT(cuDevicePrimaryCtxSetFlags) ABSENT(cuDevicePrimaryCtxGetState) ABSENT(cuDevicePrimaryCtxReset)
ABSENT(cuStreamQuery) ABSENT(cuStreamAddCallback) ABSENT(cuEventQuery) ABSENT(cuLaunchKernel)
ABSENT(cuLinkCreate) ABSENT(cuLinkAddData) ABSENT(cuLinkComplete) ABSENT(cuLinkDestroy) ABSENT(cuModuleLoadData)
ABSENT(cuModuleUnload) ABSENT(cuModuleGetFunction) ABSENT(cuModuleGetGlobal) ABSENT(cuTexObjectCreate)
ABSENT(cuTexObjectDestroy) ABSENT(cuGLGetDevices_v2) ABSENT(cuGraphicsGLRegisterImage)
ABSENT(cuGraphicsUnregisterResource) ABSENT(cuGraphicsMapResources) ABSENT(cuGraphicsUnmapResources)
ABSENT(cuGraphicsSubResourceGetMappedArray) ABSENT(cuGraphicsResourceGetMappedPointer_v2) ABSENT(cuArrayCreate_v2)
ABSENT(cuArray3DCreate_v2) ABSENT(cuArrayDestroy) ABSENT(cuArray3DGetDescriptor_v2) ABSENT(cuArrayGetPlane)
ABSENT(cuCtxGetStreamPriorityRange) ABSENT(cuStreamCreateWithPriority) ABSENT(cuLaunchHostFunc)
ABSENT(cuMemsetD16Async) ABSENT(cuMemsetD32Async) ABSENT(cuMemsetD2D8Async) ABSENT(cuMemsetD2D16Async)
ABSENT(cuMemsetD2D32Async) ABSENT(cuDeviceGetPCIBusId) ABSENT(cuDeviceGetByPCIBusId) ABSENT(cuDeviceGetLuid)

/* ---- symbol look-up: cuda-bindings asks for every function by its plain name ---------------- */

API int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags, int *status)
{
    static void *self;
    Dl_info info;
    char newer[128];
    if (!self && dladdr((void *)cuInit, &info)) self = dlopen(info.dli_fname, RTLD_LAZY);
    snprintf(newer, sizeof newer, "%s_v2", name);
    *out = self ? dlsym(self, newer) : NULL;
    if (!*out && self) *out = dlsym(self, name);
    if (status) *status = *out ? 0 : 1;
    return *out ? OK : NOT_FOUND;
}
