/* The operators of byte_operators.py, native: compiled graphs call them without Python.

   They are registered through torch's C interface, which is the same from release to release. Python looks its functions
   up in the torch that runs, so that this module is built without torch and links to nothing of it. */

#include "_byte_table.h"
#include <stdbool.h>
#include <string.h>

typedef uint64_t Value; /* what torch hands over: the bits of a number, or a tensor that we own */
typedef void *Tensor;
typedef void (*Operator)(Value *stack, uint64_t given, uint64_t returned);

static struct {
    int (*data)(Tensor, void **);
    int (*dimensions)(Tensor, int64_t *);
    int (*sizes)(Tensor, int64_t **);
    int (*strides)(Tensor, int64_t **);
    int (*dtype)(Tensor, int32_t *);
    int (*release)(Tensor);
    int (*from_blob)(void *, int64_t, const int64_t *, const int64_t *, int64_t, int32_t, int32_t, int32_t, Tensor *,
                     int32_t, const uint8_t *, int64_t, void (*)(void *, void *), void *);
    void (*check)(bool, const char *, const char *, uint32_t, const char *);
    int (*open)(const char *, const char *, const char *, uint32_t, void **);
    int (*implement)(void *, const char *, Operator);
} torch;

/* In the order of the struct. */
static const char *const FUNCTIONS[] = {
    "aoti_torch_get_data_ptr", "aoti_torch_get_dim",   "aoti_torch_get_sizes",
    "aoti_torch_get_strides",  "aoti_torch_get_dtype", "aoti_torch_delete_tensor_object",
    "torch_from_blob",         "aoti_torch_check",     "aoti_torch_library_init_impl",
    "aoti_torch_library_impl",
};
#define NUM_FUNCTIONS (sizeof(FUNCTIONS) / sizeof(FUNCTIONS[0]))

enum { UINT8 = 0, QUINT8 = 13, CPU = 0, ANY = -1, STRIDED = 0 }; /* torch's own numbers */

static const Kernel *kernel;

/* Throws torch's exception; what it unwinds is C, so tensors that were handed over leak. */
#define REQUIRE(condition) torch.check((condition), __func__, "_byte_operators.c", __LINE__, "expected " #condition)

typedef struct {
    uint8_t *data;
    int64_t dimensions, count;
    const int64_t *sizes, *strides;
    bool is_dense;
} Bytes;

static Bytes bytes_of(Value value) {
    const Tensor tensor = (Tensor)value;
    Bytes bytes = {.count = 1};
    void *data = NULL;
    int64_t *sizes = NULL, *strides = NULL, span = 1;
    int32_t dtype = -1;
    REQUIRE(!torch.data(tensor, &data) && !torch.dimensions(tensor, &bytes.dimensions));
    REQUIRE(!torch.sizes(tensor, &sizes) && !torch.strides(tensor, &strides) && !torch.dtype(tensor, &dtype));
    REQUIRE(dtype == UINT8 || dtype == QUINT8);
    for (int64_t i = 0; i < bytes.dimensions; i++) {
        bytes.count *= sizes[i];
        span += (sizes[i] - 1) * strides[i];
    }
    bytes.data = data;
    bytes.sizes = sizes;
    bytes.strides = strides;
    bytes.is_dense = span == bytes.count || bytes.count == 0;
    return bytes;
}

static bool have_same_layout(const Bytes *a, const Bytes *b) {
    bool same = a->dimensions == b->dimensions && a->is_dense && b->is_dense;
    for (int64_t i = 0; same && i < a->dimensions; i++)
        same = a->sizes[i] == b->sizes[i] && (a->sizes[i] == 1 || a->strides[i] == b->strides[i]);
    return same;
}

static bool has_channels_last(const Bytes *bytes) {
    static const int ORDER[] = {1, 3, 2, 0};
    int64_t stride = 1;
    bool last = bytes->dimensions == 4;
    for (int i = 0; last && i < 4; i++) {
        const int64_t size = bytes->sizes[ORDER[i]];
        last = size == 1 || bytes->strides[ORDER[i]] == stride;
        stride *= size;
    }
    return last;
}

static const uint8_t *table_of(Value value) {
    const Bytes table = bytes_of(value);
    REQUIRE(table.count == 256 && table.is_dense);
    return table.data;
}

static float float_of(Value value) {
    double number;
    memcpy(&number, &value, sizeof(number));
    return (float)number;
}

/* map_(Tensor(a!) to, Tensor from, Tensor table) -> Tensor(a!) */
static void map_operator(Value *stack, uint64_t given, uint64_t returned) {
    (void)given, (void)returned;
    const Bytes to = bytes_of(stack[0]), from = bytes_of(stack[1]);
    REQUIRE(have_same_layout(&to, &from));
    const Rows rows = {.to = to.data, .from = from.data, .length = (size_t)to.count, .count = 1};
    kernel->map(&rows, table_of(stack[2]));
    torch.release((Tensor)stack[1]);
    torch.release((Tensor)stack[2]);
}

/* add_(Tensor(a!) values, Tensor other, Tensor table, float x 6) -> Tensor(a!) */
static void add_operator(Value *stack, uint64_t given, uint64_t returned) {
    (void)given, (void)returned;
    const Bytes values = bytes_of(stack[0]), other = bytes_of(stack[1]);
    REQUIRE(have_same_layout(&values, &other));
    const Scales scales = {
        .table_scale = float_of(stack[3]),
        .table_zero = float_of(stack[4]),
        .other_scale = float_of(stack[5]),
        .other_zero = float_of(stack[6]),
        .inverse = 1.0f / float_of(stack[7]),
        .zero = float_of(stack[8]),
    };
    kernel->add(values.data, other.data, (size_t)values.count, table_of(stack[2]), &scales);
    torch.release((Tensor)stack[1]);
    torch.release((Tensor)stack[2]);
}

/* A rectangle of one sample of a tensor, (C, H, W) with channels last. */
typedef struct {
    uint8_t *data;
    int64_t channels, height, width;
} Sample;

static void fill_around(const Sample *to, const Sample *from, int64_t top, int64_t left, int fill) {
    const int64_t pitch = to->width * to->channels, row = from->width * from->channels;
    uint8_t *at = to->data;
    for (int64_t i = 0; i < from->height; i++) {
        uint8_t *begin = to->data + (top + i) * pitch + left * to->channels;
        memset(at, fill, (size_t)(begin - at));
        at = begin + row;
    }
    memset(at, fill, (size_t)(to->data + to->height * pitch - at));
}

static void place(const Sample *to, const Sample *from, int64_t top, int64_t left, int64_t channel,
                  const uint8_t *table) {
    const bool joined = from->channels == to->channels; /* pixels of a row lie side by side in both */
    const size_t length = (size_t)(joined ? from->width * from->channels : from->channels);
    const size_t pitch = (size_t)(to->width * to->channels), from_pitch = (size_t)(from->width * from->channels);
    const int64_t calls = joined || from->width == to->width ? 1 : from->height;
    Rows rows = {
        .to = to->data + (size_t)top * pitch + (size_t)(left * to->channels + channel),
        .from = from->data,
        .length = length,
        .count = (size_t)(joined ? from->height : from->height * from->width / calls),
        .to_stride = joined ? pitch : (size_t)to->channels,
        .from_stride = length,
    };
    for (int64_t i = 0; i < calls; i++) {
        kernel->map(&rows, table);
        rows.to += pitch;
        rows.from += from_pitch;
    }
}

static Sample sample_of(const Bytes *bytes, int64_t number) {
    const int64_t size = bytes->sizes[1] * bytes->sizes[2] * bytes->sizes[3];
    return (Sample){bytes->data + number * size, bytes->sizes[1], bytes->sizes[2], bytes->sizes[3]};
}

/* place_(Tensor(a!) to, Tensor from, Tensor table, int top, int left, int channel, int fill) -> Tensor(a!) */
static void place_operator(Value *stack, uint64_t given, uint64_t returned) {
    (void)given, (void)returned;
    const Bytes to = bytes_of(stack[0]), from = bytes_of(stack[1]);
    const uint8_t *table = table_of(stack[2]);
    const int64_t top = (int64_t)stack[3], left = (int64_t)stack[4], channel = (int64_t)stack[5];
    const int64_t fill = (int64_t)stack[6];
    REQUIRE(has_channels_last(&to) && has_channels_last(&from) && to.sizes[0] == from.sizes[0]);
    REQUIRE(channel >= 0 && channel + from.sizes[1] <= to.sizes[1]);
    REQUIRE(top >= 0 && top + from.sizes[2] <= to.sizes[2]);
    REQUIRE(left >= 0 && left + from.sizes[3] <= to.sizes[3]);
    REQUIRE(fill < 0 || from.sizes[1] == to.sizes[1]);
    for (int64_t i = 0; i < to.sizes[0]; i++) {
        const Sample target = sample_of(&to, i), source = sample_of(&from, i);
        if (fill >= 0)
            fill_around(&target, &source, top, left, (int)fill);
        if (from.count)
            place(&target, &source, top, left, channel, table);
    }
    torch.release((Tensor)stack[1]);
    torch.release((Tensor)stack[2]);
}

/* Chunks of two rows in turn. With a constant length, as below, a copy is two moves. */
static inline void alternate(uint8_t *to, const uint8_t *upper, const uint8_t *lower, int64_t count, size_t length) {
    for (int64_t i = 0; i < count; i++, to += 2 * length, upper += length, lower += length) {
        memcpy(to, upper, length);
        memcpy(to + length, lower, length);
    }
}

/* squares_(Tensor(a!) to, Tensor from) -> Tensor(a!) */
static void squares_operator(Value *stack, uint64_t given, uint64_t returned) {
    (void)given, (void)returned;
    const Bytes to = bytes_of(stack[0]), from = bytes_of(stack[1]);
    REQUIRE(has_channels_last(&to) && has_channels_last(&from) && to.sizes[0] == from.sizes[0]);
    REQUIRE(to.sizes[1] == 4 * from.sizes[1] && from.sizes[1] <= 4);
    REQUIRE(2 * to.sizes[2] == from.sizes[2] && 2 * to.sizes[3] == from.sizes[3]);
    const int64_t count = to.sizes[3], row = from.sizes[1] * from.sizes[3];
    for (int64_t i = 0; i < to.sizes[0] * to.sizes[2]; i++) {
        uint8_t *const at = to.data + i * 2 * row;
        const uint8_t *const upper = from.data + i * 2 * row, *const lower = upper + row;
        switch (from.sizes[1]) {
        case 1: alternate(at, upper, lower, count, 2); break;
        case 2: alternate(at, upper, lower, count, 4); break;
        case 3: alternate(at, upper, lower, count, 6); break;
        default: alternate(at, upper, lower, count, 8);
        }
    }
    torch.release((Tensor)stack[1]);
}

static void release_owner(void *data, void *owner) {
    (void)data;
    torch.release(owner);
}

/* bytes(Tensor(a) quantized) -> Tensor(a): the result holds the tensor whose memory it shows. */
static void bytes_operator(Value *stack, uint64_t given, uint64_t returned) {
    (void)given, (void)returned;
    const Bytes seen = bytes_of(stack[0]);
    Tensor result = NULL;
    REQUIRE(!torch.from_blob(seen.data, seen.dimensions, seen.sizes, seen.strides, 0, UINT8, CPU, ANY, &result,
                             STRIDED, NULL, 0, release_owner, (Tensor)stack[0]));
    stack[0] = (Value)result;
}

static const struct {
    const char *name;
    Operator run;
} OPERATORS[] = {{"map_", map_operator}, {"add_", add_operator}, {"place_", place_operator}, {"squares_", squares_operator}, {"bytes", bytes_operator}};
#define NUM_OPERATORS (sizeof(OPERATORS) / sizeof(OPERATORS[0]))

PyObject *torch_functions(PyObject *module, PyObject *nothing) {
    (void)module, (void)nothing;
    PyObject *names = PyList_New(NUM_FUNCTIONS);
    for (size_t i = 0; names && i < NUM_FUNCTIONS; i++)
        PyList_SetItem(names, (Py_ssize_t)i, PyUnicode_FromString(FUNCTIONS[i]));
    return names;
}

PyObject *register_operators(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    (void)module;
    void *addresses[NUM_FUNCTIONS], *library = NULL;
    kernel = given == 2 ? kernel_called(arguments[0]) : NULL;
    for (size_t i = 0; kernel && i < NUM_FUNCTIONS; i++) {
        PyObject *address = PySequence_GetItem(arguments[1], (Py_ssize_t)i);
        addresses[i] = address ? PyLong_AsVoidPtr(address) : NULL;
        Py_XDECREF(address);
    }
    if (PyErr_Occurred() || !kernel)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_TypeError, "expected 2 arguments, not %zd", given);
    _Static_assert(sizeof(addresses) == sizeof(torch), "as many names as functions");
    memcpy(&torch, addresses, sizeof(torch));
    static const char *const KEYS[] = {"CPU", "QuantizedCPU"}; /* tensors of others have no memory to read */
    int failed = 0;
    for (size_t key = 0; key < 2; key++) {
        failed = failed || torch.open("qgate", KEYS[key], "_byte_operators.c", __LINE__, &library);
        for (size_t i = 0; !failed && i < NUM_OPERATORS; i++)
            failed = torch.implement(library, OPERATORS[i].name, OPERATORS[i].run);
    }
    if (failed)
        return PyErr_Format(PyExc_RuntimeError, "torch did not take qgate's operators");
    Py_RETURN_NONE;
}
