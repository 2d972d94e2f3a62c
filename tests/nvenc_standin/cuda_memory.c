/* The stand-in's memory (see knobs.h): host memory plays the device's, and copies are counted by the
 * kind of memory that they read. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "cuda.h"

/* ---- memory: blocks that CUDA knows; any other address is pageable host memory --------------- */

enum { PAGEABLE, DEVICE, PINNED, REGISTERED };
typedef struct Block {
    struct Block *next;
    char *start;
    size_t size;
    int kind, device;
} Block;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;    /* guards blocks */
static Block *blocks;

static Block block_at(const void *start, size_t size)       /* a copy; PAGEABLE if there is none */
{
    Block found = {.kind = PAGEABLE};
    pthread_mutex_lock(&lock);
    for (Block *b = blocks; b; b = b->next)
        if ((char *)start >= b->start && (char *)start + size <= b->start + b->size) found = *b;
    pthread_mutex_unlock(&lock);
    return found;
}

int cuda_device_memory(const void *p, size_t size) { return block_at(p, size).kind == DEVICE; }

static void add_block(void *start, size_t size, int kind)
{
    Block *block = malloc(sizeof *block);
    pthread_mutex_lock(&lock);
    *block = (Block){blocks, start, size, kind, cuda_current()->device};
    blocks = block;
    pthread_mutex_unlock(&lock);
    COUNT(device_allocs, kind == DEVICE);
    COUNT(pinned_allocs, kind != DEVICE);
}

static int remove_block(void *start, int kind)              /* 1 if there was such a block */
{
    cuda_finish_copies();
    pthread_mutex_lock(&lock);
    Block **at = &blocks, *block;
    while ((block = *at) && !(block->start == start && block->kind == kind)) at = &block->next;
    if (block) *at = block->next;
    pthread_mutex_unlock(&lock);
    COUNT(device_frees, block && kind == DEVICE);
    COUNT(pinned_frees, block && kind != DEVICE);
    free(block);
    return block != NULL;
}

static int allocate(void *out, size_t size, int kind)
{
    void *start;
    if (cuda_usable()) return cuda_usable();
    if (!size) return INVALID_VALUE;
    if (posix_memalign(&start, kind == DEVICE ? 512 : 4096, size)) return OUT_OF_MEMORY;
    memset(start, kind == DEVICE ? 0xCD : 0, size);         /* device memory starts as garbage */
    add_block(start, size, kind);
    *(void **)out = start;
    return OK;
}

static int release(void *start, int kind)
{
    if (!cuda_is_initialized) return NOT_INITIALIZED;
    if (start && !remove_block(start, kind)) return INVALID_VALUE;
    free(start);
    return OK;
}

API int cuMemAlloc_v2(CUdeviceptr *p, size_t n) { ENTER(); return allocate(p, n, DEVICE); }
API int cuMemAllocAsync(CUdeviceptr *p, size_t n, CUstream s) { return cuMemAlloc_v2(p, n); }
API int cuMemAllocHost_v2(void **p, size_t n) { ENTER(); return allocate(p, n, PINNED); }
API int cuMemHostAlloc(void **p, size_t n, unsigned f) { ENTER(); return allocate(p, n, PINNED); }
API int cuMemFree_v2(CUdeviceptr p) { ENTER(); return release((void *)p, DEVICE); }
API int cuMemFreeAsync(CUdeviceptr p, CUstream s) { return cuMemFree_v2(p); }
API int cuMemFreeHost(void *p) { ENTER(); return release(p, PINNED); }

API int cuMemAllocPitch_v2(CUdeviceptr *out, size_t *pitch, size_t width, size_t height, unsigned e)
{
    ENTER();
    *pitch = (width + 511) / 512 * 512;                     /* as real cards do */
    return allocate(out, *pitch * height, DEVICE);
}

API int cuMemHostRegister_v2(void *start, size_t size, unsigned flags)
{
    IN_CONTEXT();
    if (!start || !size) return INVALID_VALUE;
    if (block_at(start, 1).kind) return ALREADY_REGISTERED;
    add_block(start, size, REGISTERED);
    return OK;
}

API int cuMemHostUnregister(void *p)
{
    ENTER();
    return remove_block(p, REGISTERED) ? OK : NOT_REGISTERED;
}

API int cuPointerGetAttribute(void *out, int attribute, CUdeviceptr pointer)
{
    READY();
    Block b = block_at((void *)pointer, 1);
    if (!b.kind) return INVALID_VALUE;                      /* as for any pageable pointer */
    switch (attribute) {
    case 2: *(int *)out = b.kind == DEVICE ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST; return OK;
    case 3: *(CUdeviceptr *)out = pointer; return OK;       /* the device's address for it */
    case 8: *(int *)out = 0; return OK;                     /* managed memory? */
    case 9: *(int *)out = b.device; return OK;
    }
    return INVALID_VALUE;
}

/* ---- copies ---------------------------------------------------------------------------------- */

/* A copy from pinned memory runs later, by DMA. STANDIN_LATE=1 puts it off as long as allowed: until
 * someone synchronizes, fetches an encoded picture or frees memory. Who overwrites a pinned buffer
 * too soon then sees it in the picture. Pageable memory is staged at once, as drivers do. */
typedef struct Copy {
    struct Copy *next;
    char *to;
    const char *from;
    size_t to_pitch, from_pitch, width, height;
} Copy;
static Copy *late, **late_end = &late;
static pthread_mutex_t late_lock = PTHREAD_MUTEX_INITIALIZER;

static void run(const Copy *c)
{
    for (size_t y = 0; y < c->height; y++)
        memcpy(c->to + y * c->to_pitch, c->from + y * c->from_pitch, c->width);
}

void cuda_finish_copies(void)
{
    pthread_mutex_lock(&late_lock);     /* held throughout: all copies are done when this returns */
    for (Copy *next; late; late = next) {
        next = late->next;
        run(late);
        free(late);
    }
    late_end = &late;
    pthread_mutex_unlock(&late_lock);
}

static int copy(Copy c, int from_host, int to_host, int async)
{
    if (cuda_usable()) return cuda_usable();
    if (!c.width || !c.height) return OK;
    if (c.width > c.from_pitch || c.width > c.to_pitch) return INVALID_VALUE;
    size_t from_size = (c.height - 1) * c.from_pitch + c.width, bytes = c.width * c.height;
    size_t to_size = (c.height - 1) * c.to_pitch + c.width;
    if (!from_host && !cuda_device_memory(c.from, from_size)) return INVALID_VALUE;
    if (!to_host && !cuda_device_memory(c.to, to_size)) return INVALID_VALUE;
    int upload = from_host && !to_host;
    int pinned = upload && block_at(c.from, from_size).kind >= PINNED;
    if (pinned) COUNT(h2d_pinned_bytes, bytes), COUNT(h2d_pinned_copies, 1);
    else if (upload) COUNT(h2d_pageable_bytes, bytes), COUNT(h2d_pageable_copies, 1);
    else if (to_host) COUNT(d2h_bytes, bytes);
    else COUNT(d2d_bytes, bytes);
    if (upload && async) COUNT(h2d_async_copies, 1);
    if (pinned && async && knob("STANDIN_LATE", 0)) {
        pthread_mutex_lock(&late_lock);
        *late_end = memcpy(malloc(sizeof c), &c, sizeof c);
        late_end = &(*late_end)->next;
        pthread_mutex_unlock(&late_lock);
    } else {
        cuda_finish_copies();
        run(&c);
    }
    return OK;
}

static int copy_2d(const CUDA_MEMCPY2D *m, int async)
{
    int from_host = m->srcMemoryType == CU_MEMORYTYPE_HOST;
    int to_host = m->dstMemoryType == CU_MEMORYTYPE_HOST;
    if (!from_host && m->srcMemoryType != CU_MEMORYTYPE_DEVICE) return NOT_SUPPORTED;
    if (!to_host && m->dstMemoryType != CU_MEMORYTYPE_DEVICE) return NOT_SUPPORTED;
    Copy c = {.width = m->WidthInBytes, .height = m->Height};
    c.from_pitch = m->srcPitch ? m->srcPitch : m->WidthInBytes;
    c.to_pitch = m->dstPitch ? m->dstPitch : m->WidthInBytes;
    c.from = from_host ? m->srcHost : (const void *)m->srcDevice;
    c.to = to_host ? m->dstHost : (void *)m->dstDevice;
    c.from += m->srcY * c.from_pitch + m->srcXInBytes;
    c.to += m->dstY * c.to_pitch + m->dstXInBytes;
    return copy(c, from_host, to_host, async);
}

static int copy_1d(CUdeviceptr device, const void *host, size_t n, int upload)
{
    Copy c = {NULL, (void *)device, host, n, n, n, 1};
    if (!upload) c.to = (void *)host, c.from = (void *)device;
    return copy(c, upload, !upload, 0);
}

API int cuMemcpy2D_v2(const CUDA_MEMCPY2D *m) { ENTER(); return copy_2d(m, 0); }
API int cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *m, CUstream s) { ENTER(); return copy_2d(m, 1); }
API int cuMemcpyHtoD_v2(CUdeviceptr d, void *h, size_t n) { ENTER(); return copy_1d(d, h, n, 1); }
API int cuMemcpyDtoH_v2(void *h, CUdeviceptr d, size_t n) { ENTER(); return copy_1d(d, h, n, 0); }
API int cuMemcpyDtoHAsync_v2(void *h, CUdeviceptr d, size_t n, CUstream s)
{
    ENTER();
    return copy_1d(d, h, n, 0);
}
