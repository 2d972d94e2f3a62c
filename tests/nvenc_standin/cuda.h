/* What the two files of the CUDA part share: its error codes, its contexts, and how an entry point
 * begins. See knobs.h for what all of this is. */
#pragma once
#include <stdint.h>
#include <ffnvcodec/dynlink_cuda.h>     /* types only; it lists few of the error codes */
#include "knobs.h"

enum { OK, INVALID_VALUE, OUT_OF_MEMORY, NOT_INITIALIZED, NO_DEVICE = 100, INVALID_DEVICE,
       INVALID_CONTEXT = 201, NOT_FOUND = 500, ILLEGAL_ADDRESS = 700,
       ALREADY_REGISTERED = 712, NOT_REGISTERED, NOT_SUPPORTED = 801, UNKNOWN = 999 };

typedef struct Context { int device, users; } Context;      /* alive while it has users */

/* ---- cuda_driver.c -------------------------------------------------------------------------- */

extern atomic_int cuda_is_initialized;
Context *cuda_current(void);
int cuda_usable(void);                  /* OK, or why a call that needs a context must fail */

/* ---- how an entry point starts, by what it needs --------------------------------------------- */

#define READY() do { ENTER(); if (!cuda_is_initialized) return NOT_INITIALIZED; } while (0)
#define IN_CONTEXT() do { ENTER(); if (cuda_usable()) return cuda_usable(); } while (0)
