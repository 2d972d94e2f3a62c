/* What the files of the NVENC part share. See knobs.h for what all of this is. The header of the API
 * may be older than the client: the fields used here lie at the same offsets in the APIs 11.1, 12.1
 * and 13.0, but for those in wants_restart(), and struct versions go unchecked. */
#pragma once
#include <stdint.h>
#include <x264.h>
#include <ffnvcodec/nvEncodeAPI.h>
#include "knobs.h"

enum { QUEUE = 256, MIN_WIDTH = 145, MIN_HEIGHT = 49, MAX_SIDE = 4096 };

typedef struct Surface {                /* a registered input buffer */
    uint8_t *data;
    uint32_t width, height, pitch, format;
    int mapped, is_own;                 /* is_own: made by nvEncCreateInputBuffer, in the host's memory */
} Surface;

typedef struct Bitstream {              /* an output buffer */
    uint8_t *data;
    size_t size, room;
    int ready;
    NV_ENC_PIC_TYPE type;
    uint64_t timestamp;
    uint32_t index;
} Bitstream;

typedef struct Picture {                /* one call of nvEncEncodePicture */
    Surface *input;
    Bitstream *output;
    uint64_t timestamp;
    uint32_t index, flags;
    x264_sei_t sei;
} Picture;

/* The n-th picture stays in pictures[n % QUEUE] until its packet is out. The n-th packet, in
 * decoding order, goes to the output buffer that came with the n-th picture. */
typedef struct Session {
    x264_t *x264;
    x264_param_t param;
    NV_ENC_CONFIG config;
    Picture pictures[QUEUE];
    uint32_t submitted, encoded, packets, gop;
    int profile;                        /* profile_idc */
    struct { int frame_num_bits, poc_type, poc_bits, init_qp; uint32_t l0, l1; } own;   /* as x264 has it */
    uint32_t frame_num, idrs, idr_packet, slices;
    int64_t idr_pts;
    uint8_t headers[1024];              /* SPS and PPS */
    size_t header_size;
    int seat;                           /* see nvenc_seats.c */
    char error[128];
} Session;

/* ---- nvenc_session.c ------------------------------------------------------------------------ */

NVENCSTATUS nvenc_fail(Session *s, NVENCSTATUS code, const char *why);
int nvenc_same(GUID a, GUID b);

/* ---- nvenc_seats.c: how many sessions may be open -------------------------------------------- */

int nvenc_take_seat(int *seat);         /* 0 if all are taken */
void nvenc_leave_seat(int seat);

/* ---- nvenc_config.c ------------------------------------------------------------------------- */

NVENCSTATUS nvenc_open_x264(Session *s, const NV_ENC_INITIALIZE_PARAMS *init);
void nvenc_set_rate_control(x264_param_t *p, const NV_ENC_RC_PARAMS *r);

/* ---- nvenc_bitstream.c ----------------------------------------------------------------------- */

void nvenc_read_headers(Session *s, const uint8_t *nal, size_t size);   /* x264's SPS or PPS */
void nvenc_write_headers(Session *s);
/* scratch has room for the largest NAL unit twice, and to for all, each grown by a half and 64 bytes. */
size_t nvenc_write_picture(Session *s, const x264_nal_t *nals, int count, const x264_picture_t *out,
                           uint8_t *scratch, uint8_t *to);

/* ---- entry points: nvenc_session.c puts them into the list that clients get ------------------- */

NVENCSTATUS nvEncInitializeEncoder(void *e, NV_ENC_INITIALIZE_PARAMS *p);
NVENCSTATUS nvEncGetSequenceParams(void *e, NV_ENC_SEQUENCE_PARAM_PAYLOAD *p);
NVENCSTATUS nvEncRegisterResource(void *e, NV_ENC_REGISTER_RESOURCE *r);
NVENCSTATUS nvEncUnregisterResource(void *e, void *r);
NVENCSTATUS nvEncMapInputResource(void *e, NV_ENC_MAP_INPUT_RESOURCE *m);
NVENCSTATUS nvEncUnmapInputResource(void *e, void *mapped);
NVENCSTATUS nvEncCreateInputBuffer(void *e, NV_ENC_CREATE_INPUT_BUFFER *b);
NVENCSTATUS nvEncDestroyInputBuffer(void *e, void *buffer);
NVENCSTATUS nvEncLockInputBuffer(void *e, NV_ENC_LOCK_INPUT_BUFFER *l);
NVENCSTATUS nvEncUnlockInputBuffer(void *e, void *buffer);
NVENCSTATUS nvEncCreateBitstreamBuffer(void *e, NV_ENC_CREATE_BITSTREAM_BUFFER *b);
NVENCSTATUS nvEncDestroyBitstreamBuffer(void *e, void *buffer);
NVENCSTATUS nvEncEncodePicture(void *e, NV_ENC_PIC_PARAMS *p);
NVENCSTATUS nvEncLockBitstream(void *e, NV_ENC_LOCK_BITSTREAM *l);
NVENCSTATUS nvEncReconfigureEncoder(void *e, NV_ENC_RECONFIGURE_PARAMS *p);
NVENCSTATUS nvEncUnlockBitstream(void *e, void *buffer);
NVENCSTATUS nvEncSetIOCudaStreams(void *e, void *in, void *out);
