/* The stand-in's NVENC sessions (see knobs.h): opening, closing, what they can do, and the two
 * functions that libnvidia-encode.so.1 exports. H.264 only, input in CUDA device memory only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "nvenc.h"

enum { NEWEST_API = 13 };

NVENCSTATUS nvenc_fail(Session *s, NVENCSTATUS code, const char *why)
{
    snprintf(s->error, sizeof s->error, "standin: %s", why);
    if (knob("STANDIN_TRACE", 0)) fprintf(stderr, "standin: error %d: %s\n", code, why);
    return code;
}

int nvenc_same(GUID a, GUID b) { return !memcmp(&a, &b, sizeof a); }

/* ---- sessions and what they can do ---------------------------------------------------------- */

static NVENCSTATUS nvEncOpenEncodeSessionEx(NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS *p, void **e)
{
    ENTER();
    *e = NULL;
    long refusal = knob("STANDIN_NO_ENCODER", 0);
    if (refusal) return refusal == 1 ? NV_ENC_ERR_UNSUPPORTED_DEVICE : (NVENCSTATUS)refusal;
    if (p->deviceType != NV_ENC_DEVICE_TYPE_CUDA) return NV_ENC_ERR_UNSUPPORTED_DEVICE;
    if (!cuda_context_alive(p->device)) return NV_ENC_ERR_INVALID_DEVICE;
    if ((p->apiVersion & 0xff) > NEWEST_API) return NV_ENC_ERR_INVALID_VERSION;
    if (knob("STANDIN_NO_ENGINE_ON", -1) == cuda_context_device(p->device))
        return NV_ENC_ERR_UNSUPPORTED_DEVICE;
    int seat;
    if (!nvenc_take_seat(&seat))
        return (NVENCSTATUS)knob("STANDIN_SESSION_CODE", NV_ENC_ERR_INCOMPATIBLE_CLIENT_KEY);
    Session *s = calloc(1, sizeof(Session));
    s->seat = seat;
    *e = s;
    return NV_ENC_SUCCESS;
}

static NVENCSTATUS nvEncDestroyEncoder(void *e)
{
    ENTER();
    Session *s = e;
    if (s->x264) x264_encoder_close(s->x264);
    nvenc_leave_seat(s->seat);
    free(s);
    return NV_ENC_SUCCESS;
}

static NVENCSTATUS nvEncGetEncodeCaps(void *e, GUID codec, NV_ENC_CAPS_PARAM *p, int *value)
{
    ENTER();
    if (!nvenc_same(codec, NV_ENC_CODEC_H264_GUID))
        return nvenc_fail(e, NV_ENC_ERR_UNSUPPORTED_PARAM, "there is only H.264");
    switch (p->capsToQuery) {           /* roughly what a recent card answers for H.264 */
    case NV_ENC_CAPS_NUM_MAX_BFRAMES: *value = 4; break;
    case NV_ENC_CAPS_SUPPORTED_RATECONTROL_MODES: *value = 7; break;
    case NV_ENC_CAPS_LEVEL_MIN: *value = 10; break;
    case NV_ENC_CAPS_LEVEL_MAX: *value = 62; break;
    case NV_ENC_CAPS_WIDTH_MIN: *value = (int)knob("STANDIN_LEAST_SIDE", MIN_WIDTH); break;
    case NV_ENC_CAPS_HEIGHT_MIN: *value = (int)knob("STANDIN_LEAST_SIDE", MIN_HEIGHT); break;
    case NV_ENC_CAPS_WIDTH_MAX: case NV_ENC_CAPS_HEIGHT_MAX: *value = MAX_SIDE; break;
    case NV_ENC_CAPS_MB_NUM_MAX: *value = 65536; break;
    case NV_ENC_CAPS_MB_PER_SEC_MAX: *value = 1966080; break;
    case NV_ENC_CAPS_DYNAMIC_QUERY_ENCODER_CAPACITY: *value = 100; break;
    case NV_ENC_CAPS_NUM_ENCODER_ENGINES: case NV_ENC_CAPS_SUPPORT_CABAC:
    case NV_ENC_CAPS_SUPPORT_ADAPTIVE_TRANSFORM: case NV_ENC_CAPS_SUPPORT_DYN_BITRATE_CHANGE:
    case NV_ENC_CAPS_SUPPORT_DYN_RES_CHANGE: case NV_ENC_CAPS_SUPPORT_CUSTOM_VBV_BUF_SIZE:
    case NV_ENC_CAPS_SUPPORT_YUV444_ENCODE: case NV_ENC_CAPS_SUPPORT_LOOKAHEAD:
    case NV_ENC_CAPS_SUPPORT_TEMPORAL_AQ:
        *value = 1; break;
    case NV_ENC_CAPS_SUPPORT_MULTIPLE_REF_FRAMES: *value = (int)knob("STANDIN_MANY_REFS", 1); break;
    default: *value = 0;
    }
    return NV_ENC_SUCCESS;
}

/* All presets are one. B-frames for high quality, so that who forgets to refuse them notices. */
static NVENCSTATUS nvEncGetEncodePresetConfigEx(
    void *e, GUID codec, GUID preset, NV_ENC_TUNING_INFO tuning, NV_ENC_PRESET_CONFIG *out)
{
    ENTER();
    const GUID known[] = {NV_ENC_PRESET_P1_GUID, NV_ENC_PRESET_P2_GUID, NV_ENC_PRESET_P3_GUID,
                          NV_ENC_PRESET_P4_GUID, NV_ENC_PRESET_P5_GUID, NV_ENC_PRESET_P6_GUID,
                          NV_ENC_PRESET_P7_GUID};
    int i = 0;
    while (i < 7 && !nvenc_same(preset, known[i])) i++;
    if (i == 7) return nvenc_fail(e, NV_ENC_ERR_UNSUPPORTED_PARAM, "unknown preset");
    NV_ENC_CONFIG *c = &out->presetCfg;
    *c = (NV_ENC_CONFIG){.version = c->version};
    c->profileGUID = NV_ENC_H264_PROFILE_HIGH_GUID;
    c->gopLength = c->encodeCodecConfig.h264Config.idrPeriod = 250;
    c->frameIntervalP = tuning == NV_ENC_TUNING_INFO_HIGH_QUALITY || !tuning ? 3 : 1;
    c->rcParams.rateControlMode = NV_ENC_PARAMS_RC_VBR;
    c->rcParams.averageBitRate = 2000000;
    c->rcParams.constQP = (NV_ENC_QP){.qpInterP = 28, .qpInterB = 31, .qpIntra = 25};
    c->encodeCodecConfig.h264Config.chromaFormatIDC = 1;
    return NV_ENC_SUCCESS;
}

static NVENCSTATUS nvEncGetEncodeGUIDCount(void *e, uint32_t *count) { ENTER(); *count = 1; return 0; }

static NVENCSTATUS nvEncGetEncodeGUIDs(void *e, GUID *out, uint32_t room, uint32_t *count)
{
    ENTER();
    *count = room ? 1 : 0;
    if (room) *out = NV_ENC_CODEC_H264_GUID;
    return NV_ENC_SUCCESS;
}

static const char *nvEncGetLastErrorString(void *e) { return e ? ((Session *)e)->error : ""; }
static NVENCSTATUS unimplemented(void) { ENTER(); return NV_ENC_ERR_UNIMPLEMENTED; }

/* ---- the two exported functions ------------------------------------------------------------- */

API NVENCSTATUS NvEncodeAPIGetMaxSupportedVersion(uint32_t *version)
{
    ENTER();
    *version = (uint32_t)knob("STANDIN_NVENC_API", NEWEST_API << 4);
    return NV_ENC_SUCCESS;
}

API NVENCSTATUS NvEncodeAPICreateInstance(NV_ENCODE_API_FUNCTION_LIST *list)
{
    ENTER();
    if ((list->version & 0xff) > NEWEST_API) return NV_ENC_ERR_INVALID_VERSION;
    for (void **f = (void **)&list->nvEncOpenEncodeSession; f < (void **)list->reserved2; f++)
        *f = (void *)unimplemented;
#define SET(name) list->name = name;
    SET(nvEncGetEncodeGUIDCount) SET(nvEncGetEncodeGUIDs)
    SET(nvEncCreateInputBuffer) SET(nvEncDestroyInputBuffer) SET(nvEncLockInputBuffer) SET(nvEncUnlockInputBuffer)
    SET(nvEncOpenEncodeSessionEx) SET(nvEncDestroyEncoder) SET(nvEncGetEncodeCaps)
    SET(nvEncGetEncodePresetConfigEx) SET(nvEncInitializeEncoder) SET(nvEncReconfigureEncoder)
    SET(nvEncGetSequenceParams) SET(nvEncRegisterResource) SET(nvEncUnregisterResource)
    SET(nvEncMapInputResource) SET(nvEncUnmapInputResource) SET(nvEncCreateBitstreamBuffer)
    SET(nvEncDestroyBitstreamBuffer) SET(nvEncEncodePicture) SET(nvEncLockBitstream)
    SET(nvEncUnlockBitstream) SET(nvEncSetIOCudaStreams) SET(nvEncGetLastErrorString)
    return NV_ENC_SUCCESS;
}
