/* What a CUDA error code that a function here returned says. */
#include "device.h"

#ifndef DELTALM_ON_CPU
extern "C" const char *deltalm_error_text(int error) { return cudaGetErrorString((cudaError_t)error); }
#endif
