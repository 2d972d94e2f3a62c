/* The stand-in's encoder configuration (see knobs.h): NVENC's parameters become libx264's. */
#include <math.h>
#include <string.h>
#include "nvenc.h"

/* ---- configuration -------------------------------------------------------------------------- */

void nvenc_set_rate_control(x264_param_t *p, const NV_ENC_RC_PARAMS *r)
{
    int qp = (int)r->constQP.qpInterP, average = (int)(r->averageBitRate / 1000);
    int max = (int)(r->maxBitRate / 1000), buffer = (int)(r->vbvBufferSize / 1000);
    if (r->rateControlMode == NV_ENC_PARAMS_RC_CONSTQP) {
        p->rc.i_rc_method = X264_RC_CQP;
        p->rc.i_qp_constant = qp;
        p->rc.f_ip_factor = exp2f((qp - (int)r->constQP.qpIntra) / 6.f);
        p->rc.f_pb_factor = exp2f(((int)r->constQP.qpInterB - qp) / 6.f);
        return;
    }
    if (r->rateControlMode == NV_ENC_PARAMS_RC_VBR && r->targetQuality) {
        p->rc.i_rc_method = X264_RC_CRF;
        p->rc.f_rf_constant = r->targetQuality;
    } else {
        p->rc.i_rc_method = X264_RC_ABR;
        p->rc.i_bitrate = average ? average : 2000;
        if (r->rateControlMode == NV_ENC_PARAMS_RC_CBR) max = p->rc.i_bitrate;
    }
    p->rc.i_vbv_max_bitrate = max;
    p->rc.i_vbv_buffer_size = max && !buffer ? max : buffer;
}

/* What cards never write, x264 may not do: nvenc_bitstream.c could not leave it out. */
static void play_a_card(x264_param_t *p, const NV_ENC_CONFIG *c)
{
    p->b_repeat_headers = 0;            /* emit() puts them in */
    p->b_annexb = 1;
    p->b_cabac = c->encodeCodecConfig.h264Config.entropyCodingMode != NV_ENC_H264_ENTROPY_CODING_MODE_CAVLC;
    p->analyse.i_weighted_pred = X264_WEIGHTP_NONE;
    p->analyse.b_weighted_bipred = 0;
    p->analyse.b_psy = 0;               /* it would move the quantiser of chroma, in the PPS */
    p->analyse.i_direct_mv_pred = X264_DIRECT_PRED_TEMPORAL;
}

static NVENCSTATUS configure(Session *s, const NV_ENC_INITIALIZE_PARAMS *init)
{
    x264_param_t *p = &s->param;
    const NV_ENC_CONFIG *c = &s->config;
    const NV_ENC_CONFIG_H264 *h = &c->encodeCodecConfig.h264Config;
    int bframes = c->frameIntervalP > 1 ? c->frameIntervalP - 1 : 0;
    if (init->encodeWidth < MIN_WIDTH || init->encodeHeight < MIN_HEIGHT || bframes > 4 ||
        init->encodeWidth > MAX_SIDE || init->encodeHeight > MAX_SIDE)
        return nvenc_fail(s, NV_ENC_ERR_INVALID_PARAM, "picture size, or too many B-frames");

    x264_param_default_preset(p, "veryfast", "zerolatency");
    p->i_threads = 1;
    p->b_sliced_threads = 0;
    p->i_log_level = X264_LOG_NONE;
    p->i_width = (int)init->encodeWidth;
    p->i_height = (int)init->encodeHeight;
    p->i_csp = h->chromaFormatIDC == 3 ? X264_CSP_I444 : X264_CSP_I420;
    p->i_fps_num = init->frameRateNum ? init->frameRateNum : 30;
    p->i_fps_den = init->frameRateDen ? init->frameRateDen : 1;
    s->gop = c->frameIntervalP && c->gopLength ? c->gopLength : 1;
    uint32_t idr = h->idrPeriod ? h->idrPeriod : s->gop;
    p->i_keyint_max = idr < X264_KEYINT_MAX_INFINITE ? (int)idr : X264_KEYINT_MAX_INFINITE;
    p->i_scenecut_threshold = 0;
    p->i_bframe = bframes;
    p->i_bframe_adaptive = X264_B_ADAPT_NONE;
    p->i_bframe_pyramid = X264_B_PYRAMID_NONE;
    if (h->numRefL0 && !knob("STANDIN_MANY_REFS", 1))
        return nvenc_fail(s, NV_ENC_ERR_UNSUPPORTED_PARAM, "this card cannot be told its references");
    p->i_frame_reference = h->numRefL0 ? (int)h->numRefL0 : knob("STANDIN_MANY_REFS", 1) ? 3 : 1;
    p->i_frame_reference = (int)knob("STANDIN_L0", p->i_frame_reference);
    if (h->maxNumRefFrames && (int)h->maxNumRefFrames < p->i_frame_reference)
        p->i_frame_reference = (int)h->maxNumRefFrames;
    p->i_slice_count = (int)knob("STANDIN_SLICES", h->sliceMode == 3 ? h->sliceModeData : 0);
    play_a_card(p, c);
    nvenc_set_rate_control(p, &c->rcParams);
    const char *profile = p->i_csp == X264_CSP_I444 ? "high444"
                        : nvenc_same(c->profileGUID, NV_ENC_H264_PROFILE_BASELINE_GUID) ? "baseline"
                        : nvenc_same(c->profileGUID, NV_ENC_H264_PROFILE_MAIN_GUID) ? "main" : "high";
    if (x264_param_apply_profile(p, profile) < 0)
        return nvenc_fail(s, NV_ENC_ERR_INVALID_PARAM, "x264 refuses the profile");
    return NV_ENC_SUCCESS;
}

NVENCSTATUS nvenc_open_x264(Session *s, const NV_ENC_INITIALIZE_PARAMS *init)
{
    x264_nal_t *nal;
    int count;
    NVENCSTATUS result = configure(s, init);
    if (result) return result;
    if (s->x264) x264_encoder_close(s->x264);
    if (!(s->x264 = x264_encoder_open(&s->param)))
        return nvenc_fail(s, NV_ENC_ERR_INVALID_PARAM, "x264 refuses the parameters");
    x264_encoder_parameters(s->x264, &s->param);
    x264_encoder_headers(s->x264, &nal, &count);
    for (int i = 0; i < count; i++)
        if (nal[i].i_type == NAL_SPS || nal[i].i_type == NAL_PPS)
            nvenc_read_headers(s, nal[i].p_payload, (size_t)nal[i].i_payload);
    nvenc_write_headers(s);
    return NV_ENC_SUCCESS;
}

NVENCSTATUS nvEncInitializeEncoder(void *e, NV_ENC_INITIALIZE_PARAMS *p)
{
    ENTER();
    Session *s = e;
    if (!nvenc_same(p->encodeGUID, NV_ENC_CODEC_H264_GUID) || !p->encodeConfig)
        return nvenc_fail(s, NV_ENC_ERR_UNSUPPORTED_PARAM, "not H.264, or no configuration");
    s->config = *p->encodeConfig;
    return nvenc_open_x264(s, p);
}

NVENCSTATUS nvEncGetSequenceParams(void *e, NV_ENC_SEQUENCE_PARAM_PAYLOAD *p)
{
    ENTER();
    Session *s = e;
    if (!s->x264) return nvenc_fail(s, NV_ENC_ERR_ENCODER_NOT_INITIALIZED, "not initialized");
    if (p->inBufferSize < s->header_size) return nvenc_fail(s, NV_ENC_ERR_NOT_ENOUGH_BUFFER, "too small");
    memcpy(p->spsppsBuffer, s->headers, s->header_size);
    *p->outSPSPPSPayloadSize = (uint32_t)s->header_size;
    return NV_ENC_SUCCESS;
}
