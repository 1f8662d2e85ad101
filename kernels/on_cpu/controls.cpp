/* How the library for the CPU runs blocks and threads, for tests to set; see threads.h. */
#include "threads.h"

extern "C" void deltalm_shuffle_threads(uint32_t seed) { on_cpu::shuffle_seed = seed; }
extern "C" void deltalm_begin_at_block(int64_t number) { on_cpu::first_block = number; }
extern "C" const char *deltalm_error_text(int error) { return error == 1 ? "invalid argument" : "unknown"; }
extern "C" int64_t deltalm_most_shared_bytes() { return on_cpu::most_shared_bytes.exchange(0); }
