/* Stands for NVIDIA's CUDA libraries: a device of which nothing but its memory works. Device memory is the
   host's, copies copy, kernels do nothing. What is not in this file returns 0, which means success. */
#include <stdlib.h>
#include <string.h>

int cudaGetDeviceCount(int *count) { *count = 1; return 0; }
int cudaGetDevice(int *device) { *device = 0; return 0; }
int cudaRuntimeGetVersion(int *version) { *version = 13000; return 0; }
int cudaDriverGetVersion(int *version) { *version = 13000; return 0; }
int cudaMemGetInfo(size_t *left, size_t *total) { *left = *total = (size_t)8 << 30; return 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) { *value = 8; return 0; }
int cudaGetDeviceProperties(char *properties, int device) {
  /* A name of 256 bytes, then numbers whose order differs between versions. All are 8, and so the compute
     capability is 8.8. The struct of CUDA 12 and 13 has about 1,000 bytes. */
  strcpy(properties, "stub");
  for (int *number = (int *)(properties + 256); number < (int *)(properties + 800); number++) *number = 8;
  return 0;
}
int cudaMalloc(void **memory, size_t size) { *memory = malloc(size); return 0; }
int cudaMallocHost(void **memory, size_t size) { *memory = malloc(size); return 0; }
int cudaHostAlloc(void **memory, size_t size, unsigned flags) { *memory = malloc(size); return 0; }
int cudaFree(void *memory) { free(memory); return 0; }
int cudaFreeHost(void *memory) { free(memory); return 0; }
int cudaMemcpy(void *to, void *from, size_t size, int kind) { memmove(to, from, size); return 0; }
int cudaMemcpyAsync(void *to, void *from, size_t size, int kind, void *stream) {
  memmove(to, from, size);
  return 0;
}
int cudaMemset(void *memory, int value, size_t size) { memset(memory, value, size); return 0; }
int cudaMemsetAsync(void *memory, int value, size_t size, void *stream) {
  memset(memory, value, size);
  return 0;
}
const char *cudaGetErrorString(int error) { return "stub"; }
const char *cudaGetErrorName(int error) { return "stub"; }
const char *cublasGetStatusString(int status) { return "stub"; }
const char *cublasGetStatusName(int status) { return "stub"; }
const char *cudnnGetErrorString(int status) { return "stub"; }
size_t cudnnGetVersion(void) { return 91000; }

/* Handles: the address of anything. */
static void *thing;
void **__cudaRegisterFatBinary(void *binary) { return &thing; }
#define MAKES_HANDLE(name) int name(void **handle) { *handle = &thing; return 0; }
MAKES_HANDLE(cudaStreamCreate)
MAKES_HANDLE(cudaStreamCreateWithFlags)
MAKES_HANDLE(cudaEventCreate)
MAKES_HANDLE(cudaEventCreateWithFlags)
MAKES_HANDLE(cublasCreate_v2)
MAKES_HANDLE(cublasLtCreate)
MAKES_HANDLE(cudnnCreate)
