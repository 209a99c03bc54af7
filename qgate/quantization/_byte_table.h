/* What the two files of the native module share. */

#define Py_LIMITED_API 0x030A0000
#include <Python.h>
#include <stdint.h>

/* q stands for scale * (q - zero), in the table's entries and in the other summand; what is stored is
   round(sum * inverse + zero), clamped to a byte. */
typedef struct {
    float table_scale, table_zero, other_scale, other_zero, inverse, zero;
} Scales;

/* `count` rows of `length` bytes, which begin every `to_stride` and `from_stride` bytes; they may be the same rows. */
typedef struct {
    uint8_t *to;
    const uint8_t *from;
    size_t length, count, to_stride, from_stride;
} Rows;

#define MAX_PLANES 4

/* `num_planes` planes of `count` values, one behind another; at most MAX_PLANES. */
typedef struct {
    const float *values;
    size_t count, num_planes;
    float inverse, zero; /* a byte is round(value * inverse + zero), clamped */
} Planes;

typedef struct {
    const char *name;
    int (*runs_here)(void);
    void (*map)(const Rows *rows, const uint8_t *table);
    void (*add)(uint8_t *values, const uint8_t *other, size_t count, const uint8_t *table, const Scales *scales);
    void (*quantize)(uint8_t *to, const Planes *planes); /* value i of plane p becomes byte i * num_planes + p */
} Kernel;

/* The kernel of that name, a Python string; NULL and a Python error where none of that name runs on this CPU. */
const Kernel *kernel_called(PyObject *name);

/* register_operators(kernel, addresses of the functions of torch that torch_functions() names, in that order) */
PyObject *register_operators(PyObject *module, PyObject *const *arguments, Py_ssize_t given);
PyObject *torch_functions(PyObject *module, PyObject *nothing);
