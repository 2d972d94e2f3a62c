/* The stand-in's bitstream (see knobs.h): x264's slices under the parameter sets and slice headers that
 * cards write, as far as logs, headers and files of others show them. The slice data stays x264's. */
#include <string.h>
#include "nvenc.h"

enum { FRAME_NUM_BITS = 8, POC_LSB_BITS = 8, SLICE_IDR = 5, CABAC_MAIN = 77, BASELINE = 66, HIGH = 100 };
/* Lengths of the fields of timing messages, in bits */
enum { INITIAL_DELAY = 24, REMOVAL_DELAY = 16, OUTPUT_DELAY = 6, TIME_OFFSET = 24 };

typedef struct Reader { const uint8_t *data; size_t at; } Reader;      /* at: in bits */
typedef struct Writer { uint8_t *data; size_t at; } Writer;

static uint32_t get(Reader *r, int width)
{
    uint32_t value = 0;
    for (; width; width--, r->at++) value = value << 1 | (r->data[r->at / 8] >> (7 - r->at % 8) & 1);
    return value;
}

static uint32_t get_ue(Reader *r)
{
    int zeros = 0;
    while (!get(r, 1) && zeros < 31) zeros++;
    return (1u << zeros) - 1 + get(r, zeros);
}

static int get_se(Reader *r)
{
    int code = (int)get_ue(r);
    return code & 1 ? (code + 1) / 2 : -code / 2;
}

static void put(Writer *w, int width, uint32_t value)
{
    for (; width; width--, w->at++) {
        uint8_t *byte = &w->data[w->at / 8], mask = (uint8_t)(0x80 >> w->at % 8);
        *byte = (uint8_t)(value >> (width - 1) & 1 ? *byte | mask : *byte & ~mask);
    }
}

static void put_ue(Writer *w, uint32_t value)
{
    int zeros = 31 - __builtin_clz(value + 1);
    put(w, zeros, 0);
    put(w, zeros + 1, value + 1);
}

static void put_se(Writer *w, int value) { put_ue(w, (uint32_t)(value > 0 ? 2 * value - 1 : -2 * value)); }

static void fill_byte(Writer *w, int bit) { while (w->at % 8) put(w, 1, (uint32_t)bit); }
static void trail(Writer *w) { put(w, 1, 1), fill_byte(w, 0); }

/* A NAL unit from what was written, with a start code and emulation prevention (7.4.1). */
static size_t finish(const Writer *w, uint8_t *to)
{
    size_t size = 0, zeros = 0;
    memcpy(to, "\0\0\0\1", 4);
    size = 4;
    for (size_t i = 0; i < w->at / 8; i++) {
        if (zeros == 2 && w->data[i] <= 3) to[size++] = 3, zeros = 0;
        zeros = w->data[i] ? 0 : zeros + 1;
        to[size++] = w->data[i];
    }
    return size;
}

static size_t unescape(const uint8_t *nal, size_t size, uint8_t *to)    /* with its start code before it */
{
    size_t from = 2, length = 0, zeros = 0;
    while (nal[from] != 1) from++;
    for (from++; from < size; from++) {
        if (zeros == 2 && nal[from] == 3) { zeros = 0; continue; }
        zeros = nal[from] ? 0 : zeros + 1;
        to[length++] = nal[from];
    }
    return length;
}

/* ---- what x264's own parameter sets say: its slice headers are read with it ------------------- */

void nvenc_read_headers(Session *s, const uint8_t *nal, size_t size)
{
    uint8_t bytes[512];
    Reader r = {bytes, 8};
    if (size > sizeof bytes) return;
    unescape(nal, size, bytes);
    if ((bytes[0] & 31) == NAL_PPS) {
        get_ue(&r), get_ue(&r), get(&r, 2), get_ue(&r);
        s->own.l0 = get_ue(&r) + 1, s->own.l1 = get_ue(&r) + 1;
        get(&r, 3);
        s->own.init_qp = 26 + get_se(&r);
    } else {
        s->profile = (int)get(&r, 8);
        get(&r, 8), get(&r, 8), get_ue(&r);
        if (s->profile >= HIGH) {
            if (get_ue(&r) == 3) get(&r, 1);
            get_ue(&r), get_ue(&r), get(&r, 2);
        }
        s->own.frame_num_bits = (int)get_ue(&r) + 4;
        s->own.poc_type = (int)get_ue(&r);
        s->own.poc_bits = s->own.poc_type ? 0 : (int)get_ue(&r) + 4;
    }
}

/* ---- parameter sets, as cards write them ------------------------------------------------------- */

static int is_reordered(const Session *s) { return s->param.i_bframe > 0; }
static int poc_type(const Session *s) { return is_reordered(s) ? 0 : (int)knob("STANDIN_POC_TYPE", 2); }
static int has_timing(const Session *s)
{
    return knob("STANDIN_HRD", s->config.encodeCodecConfig.h264Config.outputPictureTimingSEI) != 0;
}

/* 3 where the driver chooses, 4 with B pictures. numRefL0 limits what slices use, and nobody has shown
 * what it does to the SPS; STANDIN_REFS decides. */
static uint32_t references_in_sps(const Session *s)
{
    uint32_t asked = s->config.encodeCodecConfig.h264Config.maxNumRefFrames;
    return asked ? asked : (uint32_t)knob("STANDIN_REFS", is_reordered(s) ? 4 : 3);
}

static void write_hrd(const Session *s, Writer *w)
{
    const NV_ENC_RC_PARAMS *rc = &s->config.rcParams;
    uint32_t rate = rc->maxBitRate ? rc->maxBitRate : rc->averageBitRate ? rc->averageBitRate : 1500000;
    uint32_t size = rc->vbvBufferSize ? rc->vbvBufferSize : rate;
    put_ue(w, 0);                       /* cpb_cnt_minus1 */
    put(w, 8, 0);                       /* both scales */
    put_ue(w, (rate >> 6) - 1), put_ue(w, (size >> 4) - 1);
    put(w, 1, rc->rateControlMode == NV_ENC_PARAMS_RC_CBR);
    put(w, 5, INITIAL_DELAY - 1), put(w, 5, REMOVAL_DELAY - 1), put(w, 5, OUTPUT_DELAY - 1);
    put(w, 5, TIME_OFFSET);
}

static void write_vui(const Session *s, Writer *w)
{
    const NV_ENC_CONFIG_H264_VUI_PARAMETERS *v = &s->config.encodeCodecConfig.h264Config.h264VUIParameters;
    uint32_t fps = (uint32_t)s->param.i_fps_num, per = (uint32_t)s->param.i_fps_den;
    uint32_t fine = per < 1000 ? 1000 : 1;
    put(w, 1, 1), put(w, 8, 1);         /* square samples */
    put(w, 1, 0);                       /* overscan */
    put(w, 1, v->videoSignalTypePresentFlag != 0);
    if (v->videoSignalTypePresentFlag) {
        put(w, 3, v->videoFormat), put(w, 1, v->videoFullRangeFlag);
        put(w, 1, v->colourDescriptionPresentFlag != 0);
        if (v->colourDescriptionPresentFlag)
            put(w, 8, v->colourPrimaries), put(w, 8, v->transferCharacteristics), put(w, 8, v->colourMatrix);
    }
    put(w, 1, 0);                       /* chroma location */
    put(w, 1, 1), put(w, 32, per * fine), put(w, 32, 2 * fps * fine), put(w, 1, 1);
    put(w, 1, (uint32_t)has_timing(s));
    if (has_timing(s)) write_hrd(s, w);
    put(w, 1, 0);                       /* HRD of the VCL */
    if (has_timing(s)) put(w, 1, 0);    /* low_delay_hrd_flag */
    put(w, 1, (uint32_t)has_timing(s));      /* pic_struct_present_flag */
    int restriction = knob("STANDIN_RESTRICTION", v->bitstreamRestrictionFlag) != 0;
    put(w, 1, (uint32_t)restriction);
    if (restriction) {
        put(w, 1, 1), put_ue(w, 0), put_ue(w, 0), put_ue(w, 13), put_ue(w, 9);
        put_ue(w, is_reordered(s)), put_ue(w, references_in_sps(s));
    }
}

static size_t write_sps(const Session *s, uint8_t *to)
{
    uint8_t bytes[256];
    Writer w = {bytes, 0};
    int width = s->param.i_width, height = s->param.i_height, is_444 = s->param.i_csp == X264_CSP_I444;
    uint32_t right = -width & 15, bottom = -height & 15, unit = is_444 ? 1 : 2;
    put(&w, 8, 0x67);
    put(&w, 8, (uint32_t)s->profile);
    put(&w, 8, s->profile == CABAC_MAIN ? 0x40 : s->profile == BASELINE ? 0xC0 : 0);
    put(&w, 8, (uint32_t)knob("STANDIN_LEVEL", s->param.i_level_idc));
    put_ue(&w, 0);
    if (s->profile >= HIGH) {
        put_ue(&w, is_444 ? 3 : 1);
        if (is_444) put(&w, 1, 0);
        put_ue(&w, 0), put_ue(&w, 0), put(&w, 2, 0);
    }
    put_ue(&w, FRAME_NUM_BITS - 4);
    put_ue(&w, (uint32_t)poc_type(s));
    if (!poc_type(s)) put_ue(&w, POC_LSB_BITS - 4);
    put_ue(&w, references_in_sps(s));
    put(&w, 1, 0);
    put_ue(&w, ((uint32_t)width + right) / 16 - 1), put_ue(&w, ((uint32_t)height + bottom) / 16 - 1);
    put(&w, 2, 3);                      /* frame_mbs_only_flag, direct_8x8_inference_flag */
    put(&w, 1, right || bottom);
    if (right || bottom) put_ue(&w, 0), put_ue(&w, right / unit), put_ue(&w, 0), put_ue(&w, bottom / unit);
    put(&w, 1, 1);
    write_vui(s, &w);
    trail(&w);
    return finish(&w, to);
}

static size_t write_pps(const Session *s, uint8_t *to)
{
    uint8_t bytes[64];
    Writer w = {bytes, 0};
    put(&w, 8, 0x68);
    put_ue(&w, 0), put_ue(&w, 0);
    put(&w, 1, (uint32_t)s->param.b_cabac), put(&w, 1, 0), put_ue(&w, 0);
    put_ue(&w, (uint32_t)s->param.i_frame_reference - 1), put_ue(&w, 0);
    put(&w, 3, 0);                      /* no weights */
    put_se(&w, 0), put_se(&w, 0), put_se(&w, 0);
    put(&w, 3, 4);                      /* deblocking control */
    if (s->profile >= HIGH) put(&w, 1, (uint32_t)s->param.analyse.b_transform_8x8), put(&w, 1, 0), put_se(&w, 0);
    trail(&w);
    return finish(&w, to);
}

void nvenc_write_headers(Session *s)
{
    s->header_size = write_sps(s, s->headers);
    s->header_size += write_pps(s, s->headers + s->header_size);
}

/* ---- pictures ---------------------------------------------------------------------------------- */

typedef struct Order { uint32_t frame_num, idr_id, poc; int is_idr, is_reference; } Order;

static Order next_in_order(Session *s, const x264_picture_t *out)
{
    int is_idr = out->i_type == X264_TYPE_IDR;
    if (is_idr) s->idr_pts = out->i_pts, s->idr_packet = s->packets, s->idrs++;
    Order o = {is_idr ? 0 : s->frame_num + 1, (s->idrs - 1) & 1, (uint32_t)(2 * (out->i_pts - s->idr_pts)),
               is_idr, !IS_X264_TYPE_B(out->i_type)};
    if (knob("STANDIN_IDR_ID", -1) >= 0) o.idr_id = (uint32_t)knob("STANDIN_IDR_ID", 0);
    if (o.is_reference) s->frame_num = o.frame_num;
    return o;
}

/* Buffering period and picture timing (D.1.2, D.1.3), where the SPS promises them. */
static size_t write_timing(const Session *s, const Order *o, uint8_t *to)
{
    uint8_t bytes[64];
    Writer w = {bytes, 0};
    uint32_t decoded = 2 * (s->packets - s->idr_packet), shown = o->poc + 2 * (uint32_t)is_reordered(s);
    put(&w, 8, NAL_SEI);
    if (o->is_idr) {
        put(&w, 8, 0), put(&w, 8, 7);
        put_ue(&w, 0), put(&w, INITIAL_DELAY, 45000), put(&w, INITIAL_DELAY, 45000);
        trail(&w);
    }
    put(&w, 8, 1), put(&w, 8, 4);
    put(&w, REMOVAL_DELAY, decoded), put(&w, OUTPUT_DELAY, (shown - decoded) & 63), put(&w, 4, 0), put(&w, 1, 0);
    trail(&w);
    trail(&w);
    return finish(&w, to);
}

/* Slice header (7.3.3): x264's is read over, and a card's written. */
static void rewrite_header(const Session *s, const Order *o, Reader *r, Writer *w)
{
    uint32_t first = get_ue(r), type = get_ue(r) % 5, l0 = s->own.l0, l1 = s->own.l1;
    int is_p = type == 0, is_b = type == 1, own_reference = r->data[0] >> 5;
    get_ue(r), get(r, s->own.frame_num_bits);
    if (o->is_idr) get_ue(r);
    get(r, s->own.poc_bits);
    put(w, 8, (o->is_reference ? 3u : 0u) << 5 | (r->data[0] & 31));
    put_ue(w, first), put_ue(w, type), put_ue(w, 0);
    put(w, FRAME_NUM_BITS, o->frame_num);
    if (o->is_idr) put_ue(w, o->idr_id);
    if (!poc_type(s)) put(w, POC_LSB_BITS, o->poc);
    if (is_b) put(w, 1, get(r, 1));     /* direct_spatial_mv_pred_flag */
    if ((is_p || is_b) && get(r, 1)) {
        l0 = get_ue(r) + 1;
        if (is_b) l1 = get_ue(r) + 1;
    }
    if (is_p || is_b) {
        int differs = l0 != (uint32_t)s->param.i_frame_reference || (is_b && l1 != 1);
        put(w, 1, (uint32_t)differs);
        if (differs) put_ue(w, l0 - 1);
        if (differs && is_b) put_ue(w, l1 - 1);
        get(r, 1 + is_b), put(w, 1 + is_b, 0);      /* the lists stay in their order */
    }
    if (own_reference) get(r, o->is_idr ? 2 : 1);
    if (o->is_reference) put(w, o->is_idr ? 2 : 1, 0);
    if (s->param.b_cabac && (is_p || is_b)) put_ue(w, get_ue(r));
    put_se(w, get_se(r) + s->own.init_qp - 26);
    if (get_ue(r) != 1) get_se(r), get_se(r);       /* x264 says off where the quantiser is too fine to matter */
    put_ue(w, 0), put_se(w, 0), put_se(w, 0);
}

static size_t rewrite_slice(const Session *s, const Order *o, const x264_nal_t *nal, uint8_t *scratch, uint8_t *to)
{
    size_t size = unescape(nal->p_payload, (size_t)nal->i_payload, scratch);
    Reader r = {scratch, 8};
    Writer w = {scratch + size + 64, 0};
    rewrite_header(s, o, &r, &w);
    if (s->param.b_cabac) {
        while (r.at % 8) r.at++;
        fill_byte(&w, 1);
        memcpy(w.data + w.at / 8, scratch + r.at / 8, size - r.at / 8);
        w.at += 8 * size - r.at;
    } else {
        size_t end = 8 * size - 1;
        while (!(scratch[end / 8] >> (7 - end % 8) & 1)) end--;
        while (r.at < end) put(&w, 1, get(&r, 1));
        trail(&w);
    }
    return finish(&w, to);
}

size_t nvenc_write_picture(Session *s, const x264_nal_t *nals, int count, const x264_picture_t *out,
                           uint8_t *scratch, uint8_t *to)
{
    Order order = next_in_order(s, out);
    size_t size = has_timing(s) ? write_timing(s, &order, to) : 0;
    s->slices = 0;
    for (int i = 0; i < count; i++) {
        if (nals[i].i_type == NAL_SLICE || nals[i].i_type == NAL_SLICE_IDR) {
            size += rewrite_slice(s, &order, &nals[i], scratch, to + size);
            s->slices++;
        } else {
            memcpy(to + size, nals[i].p_payload, (size_t)nals[i].i_payload);
            size += (size_t)nals[i].i_payload;
        }
    }
    return size;
}
