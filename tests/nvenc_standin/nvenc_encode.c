/* The stand-in's buffers and pictures (see knobs.h): libx264 encodes what lies in "device memory". */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "nvenc.h"

/* ---- buffers -------------------------------------------------------------------------------- */

static size_t surface_size(uint32_t format, size_t pitch, size_t height)
{
    switch (format) {
    case NV_ENC_BUFFER_FORMAT_NV12: case NV_ENC_BUFFER_FORMAT_YV12: return pitch * height * 3 / 2;
    case NV_ENC_BUFFER_FORMAT_YUV444: return pitch * height * 3;
    case NV_ENC_BUFFER_FORMAT_ARGB: case NV_ENC_BUFFER_FORMAT_ABGR: return pitch * height;
    }
    return 0;
}

NVENCSTATUS nvEncRegisterResource(void *e, NV_ENC_REGISTER_RESOURCE *r)
{
    ENTER();
    size_t size = surface_size(r->bufferFormat, r->pitch, r->height);
    if (r->resourceType != NV_ENC_INPUT_RESOURCE_TYPE_CUDADEVICEPTR || !size)
        return nvenc_fail(e, NV_ENC_ERR_UNIMPLEMENTED, "unknown kind or format of input");
    if (!cuda_device_memory(r->resourceToRegister, size))
        return nvenc_fail(e, NV_ENC_ERR_RESOURCE_REGISTER_FAILED, "not device memory, or not enough");
    Surface *surface = malloc(sizeof *surface);
    *surface = (Surface){r->resourceToRegister, r->width, r->height, r->pitch, r->bufferFormat, 0, 0};
    r->registeredResource = surface;
    return NV_ENC_SUCCESS;
}

NVENCSTATUS nvEncUnregisterResource(void *e, void *r) { ENTER(); free(r); return 0; }

NVENCSTATUS nvEncMapInputResource(void *e, NV_ENC_MAP_INPUT_RESOURCE *m)
{
    ENTER();
    Surface *surface = m->registeredResource;
    if (surface->mapped) return nvenc_fail(e, NV_ENC_ERR_MAP_FAILED, "already mapped");
    surface->mapped = 1;
    m->mappedResource = surface;
    m->mappedBufferFmt = surface->format;
    return NV_ENC_SUCCESS;
}

NVENCSTATUS nvEncUnmapInputResource(void *e, void *mapped)
{
    ENTER();
    Surface *surface = mapped;
    if (!surface->mapped) return nvenc_fail(e, NV_ENC_ERR_RESOURCE_NOT_MAPPED, "not mapped");
    surface->mapped = 0;
    return NV_ENC_SUCCESS;
}

/* Input that the client writes itself, without CUDA; ffmpeg does. */
NVENCSTATUS nvEncCreateInputBuffer(void *e, NV_ENC_CREATE_INPUT_BUFFER *b)
{
    ENTER();
    uint32_t pitch = (b->width + 511) / 512 * 512;
    size_t size = surface_size(b->bufferFmt, pitch, b->height);
    if (!size) return nvenc_fail(e, NV_ENC_ERR_UNIMPLEMENTED, "unknown format of input");
    Surface *surface = malloc(sizeof *surface);
    *surface = (Surface){calloc(1, size), b->width, b->height, pitch, b->bufferFmt, 1, 1};
    b->inputBuffer = surface;
    return NV_ENC_SUCCESS;
}

NVENCSTATUS nvEncDestroyInputBuffer(void *e, void *buffer)
{
    ENTER();
    free(((Surface *)buffer)->data);
    free(buffer);
    return NV_ENC_SUCCESS;
}

NVENCSTATUS nvEncLockInputBuffer(void *e, NV_ENC_LOCK_INPUT_BUFFER *l)
{
    ENTER();
    Surface *surface = l->inputBuffer;
    if (!surface->mapped) return nvenc_fail(e, NV_ENC_ERR_LOCK_BUSY, "already locked");
    surface->mapped = 0;
    l->bufferDataPtr = surface->data;
    l->pitch = surface->pitch;
    return NV_ENC_SUCCESS;
}

NVENCSTATUS nvEncUnlockInputBuffer(void *e, void *buffer)
{
    ENTER();
    ((Surface *)buffer)->mapped = 1;
    return NV_ENC_SUCCESS;
}

NVENCSTATUS nvEncCreateBitstreamBuffer(void *e, NV_ENC_CREATE_BITSTREAM_BUFFER *b)
{
    ENTER();
    b->bitstreamBuffer = calloc(1, sizeof(Bitstream));
    return NV_ENC_SUCCESS;
}

NVENCSTATUS nvEncDestroyBitstreamBuffer(void *e, void *buffer)
{
    ENTER();
    free(((Bitstream *)buffer)->data);
    free(buffer);
    return NV_ENC_SUCCESS;
}

/* ---- encoding ------------------------------------------------------------------------------- */

/* BT.601, limited range, chroma as the mean of 2x2: what NVENC is said to do with RGB input.
 * ARGB is B,G,R,A in memory; ABGR is R,G,B,A. */
static void rgb_to_i420(const Surface *from, int width, int height, x264_image_t *to)
{
    int red = from->format == NV_ENC_BUFFER_FORMAT_ARGB ? 2 : 0, blue = 2 - red;
    for (int y = 0; y < height; y += 2)
        for (int x = 0; x < width; x += 2) {
            int r = 0, g = 0, b = 0;                        /* sums over four pixels */
            for (int k = 0; k < 4; k++) {
                int row = y + k / 2, column = x + k % 2;
                const uint8_t *p = from->data + (size_t)row * from->pitch + 4 * column;
                to->plane[0][row * to->i_stride[0] + column] =
                    (uint8_t)((66 * p[red] + 129 * p[1] + 25 * p[blue] + 128 + (16 << 8)) >> 8);
                r += p[red], g += p[1], b += p[blue];
            }
            int at = y / 2 * to->i_stride[1] + x / 2, zero = 512 + (128 << 10);
            to->plane[1][at] = (uint8_t)((-38 * r - 74 * g + 112 * b + zero) >> 10);
            to->plane[2][at] = (uint8_t)((112 * r - 94 * g - 18 * b + zero) >> 10);
        }
}

static void emit(Session *s, const x264_nal_t *nals, int count, size_t size, const x264_picture_t *out)
{
    const Picture *p = out->opaque;
    Bitstream *b = s->pictures[s->packets % QUEUE].output;
    const NV_ENC_CONFIG_H264 *h = &s->config.encodeCodecConfig.h264Config;
    int idr = out->i_type == X264_TYPE_IDR;
    int headers = (p->flags & NV_ENC_PIC_FLAG_OUTPUT_SPSPPS) ||
                  (idr && (!s->packets || h->repeatSPSPPS));
    size_t before = headers ? s->header_size : 0, most = before + size * 3 / 2 + 64 * ((size_t)count + 1);
    uint8_t *scratch = malloc(2 * most);
    if (b->room < most) b->data = realloc(b->data, b->room = most);
    memcpy(b->data, s->headers, before);
    b->size = before + nvenc_write_picture(s, nals, count, out, scratch, b->data + before);
    free(scratch);
    b->type = idr ? NV_ENC_PIC_TYPE_IDR
            : out->i_type == X264_TYPE_I ? NV_ENC_PIC_TYPE_I
            : IS_X264_TYPE_B(out->i_type) ? NV_ENC_PIC_TYPE_B : NV_ENC_PIC_TYPE_P;
    b->timestamp = p->timestamp;
    b->index = s->packets++;
    b->ready = 1;
    COUNT(packets_out, 1);
    COUNT(bytes_out, b->size);
    if (idr) COUNT(idr_out, 1);
}

static NVENCSTATUS encode(Session *s, Picture *p)
{
    const Surface *f = p->input;
    x264_picture_t in, out;
    x264_nal_t *nal;
    uint8_t *planes = NULL, *second = f->data + (size_t)f->pitch * f->height;
    int width = s->param.i_width, height = s->param.i_height, pitch = (int)f->pitch, count;
    x264_picture_init(&in);
    if (f->format == NV_ENC_BUFFER_FORMAT_NV12) {
        in.img = (x264_image_t){X264_CSP_NV12, 2, {pitch, pitch}, {f->data, second}};
    } else if (f->format == NV_ENC_BUFFER_FORMAT_YV12) {
        uint8_t *third = second + (size_t)f->pitch * f->height / 4;
        in.img = (x264_image_t){X264_CSP_YV12, 3, {pitch, pitch / 2, pitch / 2}, {f->data, second, third}};
    } else if (f->format == NV_ENC_BUFFER_FORMAT_YUV444) {
        uint8_t *third = second + (size_t)f->pitch * f->height;
        in.img = (x264_image_t){X264_CSP_I444, 3, {pitch, pitch, pitch}, {f->data, second, third}};
    } else {
        size_t area = (size_t)width * height;
        planes = malloc(area * 3 / 2);
        in.img = (x264_image_t){X264_CSP_I420, 3, {width, width / 2, width / 2},
                                {planes, planes + area, planes + area * 5 / 4}};
        rgb_to_i420(f, width, height, &in.img);
    }
    int intra = p->flags & NV_ENC_PIC_FLAG_FORCEINTRA ||
                (s->gop < (uint32_t)s->param.i_keyint_max && p->index % s->gop == 0);
    in.i_type = p->flags & NV_ENC_PIC_FLAG_FORCEIDR ? X264_TYPE_IDR
              : intra ? X264_TYPE_I : X264_TYPE_AUTO;
    in.i_pts = p->index;
    in.extra_sei = p->sei;
    in.opaque = p;
    int size = x264_encoder_encode(s->x264, &nal, &count, &in, &out);   /* copies the pixels */
    free(planes);
    if (size < 0) return nvenc_fail(s, NV_ENC_ERR_GENERIC, "x264 failed");
    if (!size) return NV_ENC_ERR_NEED_MORE_INPUT;
    emit(s, nal, count, (size_t)size, &out);
    return NV_ENC_SUCCESS;
}

static NVENCSTATUS encode_submitted(Session *s)
{
    NVENCSTATUS result = NV_ENC_SUCCESS;
    cuda_finish_copies();
    while (s->encoded < s->submitted && (!result || result == NV_ENC_ERR_NEED_MORE_INPUT))
        result = encode(s, &s->pictures[s->encoded++ % QUEUE]);
    return result;
}

static NVENCSTATUS flush(Session *s)
{
    NVENCSTATUS result = encode_submitted(s);
    if (result && result != NV_ENC_ERR_NEED_MORE_INPUT) return result;
    while (x264_encoder_delayed_frames(s->x264) > 0) {
        x264_picture_t out;
        x264_nal_t *nal;
        int count, size = x264_encoder_encode(s->x264, &nal, &count, NULL, &out);
        if (size < 0) return nvenc_fail(s, NV_ENC_ERR_GENERIC, "x264 failed");
        if (size) emit(s, nal, count, (size_t)size, &out);
    }
    return NV_ENC_SUCCESS;
}

static x264_sei_t copy_sei(const NV_ENC_PIC_PARAMS_H264 *h)     /* x264 frees it */
{
    int n = (int)h->seiPayloadArrayCnt;
    if (!n) return (x264_sei_t){0};
    x264_sei_t sei = {n, calloc((size_t)n, sizeof *sei.payloads), free};
    for (int i = 0; i < n; i++) {
        const NV_ENC_SEI_PAYLOAD *from = &h->seiPayloadArray[i];
        uint8_t *bytes = memcpy(malloc(from->payloadSize + 1), from->payload, from->payloadSize);
        int size = (int)from->payloadSize, type = (int)from->payloadType;
        sei.payloads[i] = (x264_sei_payload_t){size, type, bytes};
    }
    return sei;
}

NVENCSTATUS nvEncEncodePicture(void *e, NV_ENC_PIC_PARAMS *p)
{
    ENTER();
    Session *s = e;
    if (!s->x264) return nvenc_fail(s, NV_ENC_ERR_ENCODER_NOT_INITIALIZED, "not initialized");
    if (p->encodePicFlags & NV_ENC_PIC_FLAG_EOS) return flush(s);
    long fine = knob("STANDIN_FAIL_AFTER", -1);
    if (fine >= 0 && s->submitted >= fine)
        return nvenc_fail(s, (NVENCSTATUS)knob("STANDIN_FAIL_CODE", NV_ENC_ERR_GENERIC), "asked to fail");
    usleep((useconds_t)knob("STANDIN_ENCODE_MS", 0) * 1000);

    Surface *f = p->inputBuffer;
    Bitstream *b = p->outputBitstream;
    if (!f || !b) return nvenc_fail(s, NV_ENC_ERR_INVALID_PTR, "no input or no output buffer");
    if (!f->mapped) return nvenc_fail(s, NV_ENC_ERR_RESOURCE_NOT_MAPPED, "input not mapped");
    if ((int)f->width < s->param.i_width || (int)f->height < s->param.i_height ||
        (!f->is_own && !cuda_device_memory(f->data, surface_size(f->format, f->pitch, f->height))))
        return nvenc_fail(s, NV_ENC_ERR_INVALID_PARAM, "input too small, or its memory freed");
    if (s->submitted - s->packets == QUEUE)
        return nvenc_fail(s, NV_ENC_ERR_NOT_ENOUGH_BUFFER, "too many pictures pending");
    COUNT(frames_in, 1);
    b->ready = 0;
    s->pictures[s->submitted % QUEUE] = (Picture){
        f, b, p->inputTimeStamp, s->submitted, p->encodePicFlags,
        copy_sei(&p->codecPicParams.h264PicParams)};
    s->submitted++;
    return knob("STANDIN_LATE", 0) ? NV_ENC_SUCCESS : encode_submitted(s);
}

NVENCSTATUS nvEncLockBitstream(void *e, NV_ENC_LOCK_BITSTREAM *l)
{
    ENTER();
    Session *s = e;
    Bitstream *b = l->outputBitstream;
    if (!b->ready) encode_submitted(s);
    if (!b->ready) return nvenc_fail(s, NV_ENC_ERR_LOCK_BUSY, "no picture in this buffer yet");
    l->bitstreamBufferPtr = b->data;
    l->bitstreamSizeInBytes = (uint32_t)b->size;
    l->pictureType = b->type;
    l->pictureStruct = NV_ENC_PIC_STRUCT_FRAME;
    l->outputTimeStamp = b->timestamp;
    l->frameIdx = b->index;
    l->numSlices = s->slices;
    l->hwEncodeStatus = 2;
    return NV_ENC_SUCCESS;
}

/* The two flags come after a struct that API 13 made 8 bytes shorter than 11.1 and 12.1 had it. */
static int wants_restart(const NV_ENC_RECONFIGURE_PARAMS *p)
{
    const uint8_t *flags = (const uint8_t *)(&p->reInitEncodeParams + 1);
    if ((p->version & 0xff) >= 13) flags -= 8;
    return *flags & 3;                  /* resetEncoder, forceIDR */
}

NVENCSTATUS nvEncReconfigureEncoder(void *e, NV_ENC_RECONFIGURE_PARAMS *p)
{
    ENTER();
    Session *s = e;
    const NV_ENC_INITIALIZE_PARAMS *new = &p->reInitEncodeParams;
    int resized = (int)new->encodeWidth != s->param.i_width ||
                  (int)new->encodeHeight != s->param.i_height;
    NVENCSTATUS result = flush(s);
    if (result) return result;
    if (new->encodeConfig) s->config = *new->encodeConfig;
    if (resized || wants_restart(p)) return nvenc_open_x264(s, new);
    nvenc_set_rate_control(&s->param, &s->config.rcParams);
    if (x264_encoder_reconfig(s->x264, &s->param) < 0)
        return nvenc_fail(s, NV_ENC_ERR_INVALID_PARAM, "x264 refuses the change");
    return NV_ENC_SUCCESS;
}

NVENCSTATUS nvEncUnlockBitstream(void *e, void *buffer) { ENTER(); return 0; }
NVENCSTATUS nvEncSetIOCudaStreams(void *e, void *in, void *out) { ENTER(); return 0; }
