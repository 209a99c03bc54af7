/* Byte tables, and sums behind them: AVX2, and AVX512-VBMI where the CPU has it.

   A table of 256 bytes fits into vector registers, so a lookup is a shuffle and no load. byte_table.py says what the
   functions mean, checks their arguments, compares every kernel with the definition once, and does without this module
   where it could not be built or none of the kernels runs. Floating-point contraction must be off (setup.py): one
   multiply-add is written out below, and where none is, product and sum are each rounded. */

#include "_byte_table.h"
#include <string.h>

/* Beyond a byte in any case, and within int32: greater floats would convert to INT_MIN. */
#define GREATEST 1e6f

/* As a float, 2^23 + q has q in its low byte and the upper half of 2^23, for each byte q. */
#define TWO_TO_23 8388608.0f
#define UPPER_HALF 0x4b00

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vbmi")))

typedef struct {
    __m256i rows[16]; /* row i: entries 16 i to 16 i + 15, once in each half */
} Sixteenths;

AVX2 static inline Sixteenths sixteenths_of(const uint8_t *table) {
    Sixteenths result;
    for (int i = 0; i < 16; i++)
        result.rows[i] = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(table + 16 * i)));
    return result;
}

/* A shuffle looks bits 0 to 3 up in one row, and gives 0 where bit 7 is set: so an OR chooses between rows i and i + 8.
   Bits 4, 5 and 6, moved to bit 7, choose among what is left. */
AVX2 static inline __m256i look_up(__m256i x, const Sixteenths *table) {
    const __m256i lower = _mm256_and_si256(x, _mm256_set1_epi8((char)0x8f));
    const __m256i upper = _mm256_xor_si256(lower, _mm256_set1_epi8((char)0x80));
    const __m256i bit4 = _mm256_slli_epi16(x, 3), bit5 = _mm256_slli_epi16(x, 2), bit6 = _mm256_slli_epi16(x, 1);
    __m256i found[8];
    for (int i = 0; i < 8; i++)
        found[i] = _mm256_or_si256(_mm256_shuffle_epi8(table->rows[i], lower),
                                   _mm256_shuffle_epi8(table->rows[i + 8], upper));
    for (int i = 0; i < 4; i++)
        found[i] = _mm256_blendv_epi8(found[2 * i], found[2 * i + 1], bit4);
    for (int i = 0; i < 2; i++)
        found[i] = _mm256_blendv_epi8(found[2 * i], found[2 * i + 1], bit5);
    return _mm256_blendv_epi8(found[0], found[1], bit6);
}

AVX2 static inline void map_32(uint8_t *to, const uint8_t *from, const Sixteenths *table) {
    _mm256_storeu_si256((__m256i *)to, look_up(_mm256_loadu_si256((const __m256i *)from), table));
}

AVX2 static inline void map_16(uint8_t *to, const uint8_t *from, const Sixteenths *table) {
    const __m256i x = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)from));
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(look_up(x, table)));
}

AVX2 static void map_row_avx2(uint8_t *to, const uint8_t *from, size_t length, const Sixteenths *table) {
    uint8_t tail[16] = {0};
    size_t i = 0;
    for (; i + 32 <= length; i += 32)
        map_32(to + i, from + i, table);
    for (; i + 16 <= length; i += 16)
        map_16(to + i, from + i, table);
    if (i == length)
        return;
    memcpy(tail, from + i, length - i);
    map_16(tail, tail, table);
    memcpy(to + i, tail, length - i);
}

AVX2 static void map_avx2(const Rows *rows, const uint8_t *table) {
    const Sixteenths sixteenths = sixteenths_of(table);
    for (size_t i = 0; i < rows->count; i++)
        map_row_avx2(rows->to + i * rows->to_stride, rows->from + i * rows->from_stride, rows->length, &sixteenths);
}

/* scale * (q - zero) of eight bytes, each the low one of 32 bits whose upper half is that of 2^23 as a float. */
AVX2 static inline __m256 scaled(__m256i bytes, float scale, float zero) {
    const __m256 difference = _mm256_sub_ps(_mm256_castsi256_ps(bytes), _mm256_set1_ps(TWO_TO_23 + zero));
    return _mm256_mul_ps(difference, _mm256_set1_ps(scale));
}

AVX2 static inline __m256i sum_8(__m256i mapped, __m256i other, const Scales *scales) {
    const __m256 sum = _mm256_add_ps(scaled(mapped, scales->table_scale, scales->table_zero),
                                     scaled(other, scales->other_scale, scales->other_zero));
    const __m256 steps = _mm256_fmadd_ps(sum, _mm256_set1_ps(scales->inverse), _mm256_set1_ps(scales->zero));
    return _mm256_cvtps_epi32(_mm256_min_ps(steps, _mm256_set1_ps(GREATEST)));
}

/* 16 bytes, each the low one of 16 bits. */
AVX2 static inline __m256i sum_16(__m256i mapped, __m256i other, const Scales *scales) {
    const __m256i upper = _mm256_set1_epi16(UPPER_HALF);
    const __m256i front = sum_8(_mm256_unpacklo_epi16(mapped, upper), _mm256_unpacklo_epi16(other, upper), scales);
    const __m256i back = sum_8(_mm256_unpackhi_epi16(mapped, upper), _mm256_unpackhi_epi16(other, upper), scales);
    return _mm256_packs_epi32(front, back);
}

/* Unpacking and packing both work within lanes of 16 bytes, so the order is kept. */
AVX2 static inline void add_32(uint8_t *values, const uint8_t *other, const Sixteenths *table,
                                const Scales *scales) {
    const __m256i a = look_up(_mm256_loadu_si256((const __m256i *)values), table);
    const __m256i b = _mm256_loadu_si256((const __m256i *)other), nought = _mm256_setzero_si256();
    const __m256i front = sum_16(_mm256_unpacklo_epi8(a, nought), _mm256_unpacklo_epi8(b, nought), scales);
    const __m256i back = sum_16(_mm256_unpackhi_epi8(a, nought), _mm256_unpackhi_epi8(b, nought), scales);
    _mm256_storeu_si256((__m256i *)values, _mm256_packus_epi16(front, back));
}

AVX2 static void add_avx2(uint8_t *values, const uint8_t *other, size_t count, const uint8_t *table,
                          const Scales *scales) {
    const Sixteenths sixteenths = sixteenths_of(table);
    uint8_t tail[32] = {0}, other_tail[32] = {0};
    size_t i = 0;
    for (; i + 32 <= count; i += 32)
        add_32(values + i, other + i, &sixteenths, scales);
    memcpy(tail, values + i, count - i);
    memcpy(other_tail, other + i, count - i);
    add_32(tail, other_tail, &sixteenths, scales);
    memcpy(values + i, tail, count - i);
}

AVX2 static inline __m256i steps_8(const float *values, const Planes *planes) {
    const __m256 inverse = _mm256_set1_ps(planes->inverse), zero = _mm256_set1_ps(planes->zero);
    const __m256 steps = _mm256_fmadd_ps(_mm256_loadu_ps(values), inverse, zero);
    return _mm256_cvtps_epi32(_mm256_min_ps(steps, _mm256_set1_ps(GREATEST)));
}

AVX2 static inline __m256i bytes_32(const float *values, const Planes *planes) {
    const __m256i front = _mm256_packs_epi32(steps_8(values, planes), steps_8(values + 8, planes));
    const __m256i back = _mm256_packs_epi32(steps_8(values + 16, planes), steps_8(values + 24, planes));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* packing works within lanes of 16 bytes */
    return _mm256_permutevar8x32_epi32(_mm256_packus_epi16(front, back), order);
}

/* Where bytes i to i + 15 of three planes' bytes in turn come from: a shuffle gives 0 where an index has bit 7 set. */
typedef struct {
    __m128i from[3][3]; /* register, plane */
} Turns;

static Turns turns_of_3(void) {
    Turns turns;
    char index[16];
    for (int i = 0; i < 3; i++)
        for (int plane = 0; plane < 3; plane++) {
            for (int k = 0; k < 16; k++)
                index[k] = (char)((16 * i + k) % 3 == plane ? (16 * i + k) / 3 : 0x80);
            turns.from[i][plane] = _mm_loadu_si128((const __m128i *)index);
        }
    return turns;
}

AVX2 static inline void interleave_3(uint8_t *to, const uint8_t (*blocks)[32], const Turns *turns) {
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 3; i++, to += 16) {
            __m128i mixed = _mm_setzero_si128();
            for (int plane = 0; plane < 3; plane++) {
                const __m128i block = _mm_loadu_si128((const __m128i *)(blocks[plane] + 16 * half));
                mixed = _mm_or_si128(mixed, _mm_shuffle_epi8(block, turns->from[i][plane]));
            }
            _mm_storeu_si128((__m128i *)to, mixed);
        }
}

static inline void interleave(uint8_t *to, const uint8_t (*blocks)[32], size_t count, size_t num_planes) {
    if (num_planes == 1) {
        memcpy(to, blocks[0], count);
        return;
    }
    for (size_t i = 0; i < count; i++)
        for (size_t plane = 0; plane < num_planes; plane++)
            to[i * num_planes + plane] = blocks[plane][i];
}

AVX2 static void quantize_avx2(uint8_t *to, const Planes *planes) {
    const Turns turns = turns_of_3();
    uint8_t blocks[MAX_PLANES][32];
    for (size_t i = 0; i < planes->count; i += 32) {
        const size_t left = planes->count - i, count = left < 32 ? left : 32;
        for (size_t plane = 0; plane < planes->num_planes; plane++) {
            const float *values = planes->values + plane * planes->count + i;
            float tail[32] = {0};
            if (count < 32)
                values = memcpy(tail, values, count * sizeof(float));
            _mm256_storeu_si256((__m256i *)blocks[plane], bytes_32(values, planes));
        }
        if (count == 32 && planes->num_planes == 3)
            interleave_3(to + i * 3, blocks, &turns);
        else
            interleave(to + i * planes->num_planes, blocks, count, planes->num_planes);
    }
}

typedef struct {
    __m512i quarters[4]; /* entries 0 to 63, 64 to 127, 128 to 191 and 192 to 255 */
} Quarters;

AVX512 static inline Quarters quarters_of(const uint8_t *table) {
    Quarters result;
    for (int i = 0; i < 4; i++)
        result.quarters[i] = _mm512_loadu_si512(table + 64 * i);
    return result;
}

/* vpermi2b looks bits 0 to 6 up in two registers; bit 7 chooses between two such results. */
AVX512 static inline __m512i look_up_512(__m512i x, const Quarters *table) {
    const __m512i lower = _mm512_permutex2var_epi8(table->quarters[0], x, table->quarters[1]);
    const __m512i upper = _mm512_permutex2var_epi8(table->quarters[2], x, table->quarters[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(x), lower, upper);
}

/* A mask of the first `count` of 64 lanes, or of all where there are more. */
static inline uint64_t first_lanes(size_t count) { return count < 64 ? ((uint64_t)1 << count) - 1 : ~(uint64_t)0; }

AVX512 static void map_avx512(const Rows *rows, const uint8_t *table) {
    const Quarters quarters = quarters_of(table);
    for (size_t row = 0; row < rows->count; row++) {
        uint8_t *to = rows->to + row * rows->to_stride;
        const uint8_t *from = rows->from + row * rows->from_stride;
        for (size_t i = 0; i < rows->length; i += 64) {
            const __mmask64 which = first_lanes(rows->length - i);
            _mm512_mask_storeu_epi8(to + i, which, look_up_512(_mm512_maskz_loadu_epi8(which, from + i), &quarters));
        }
    }
}

AVX512 static inline __m512 scaled_512(__m512i bytes, float scale, float zero) {
    const __m512 difference = _mm512_sub_ps(_mm512_castsi512_ps(bytes), _mm512_set1_ps(TWO_TO_23 + zero));
    return _mm512_mul_ps(difference, _mm512_set1_ps(scale));
}

AVX512 static inline __m512i sum_16_512(__m512i mapped, __m512i other, const Scales *scales) {
    const __m512 sum = _mm512_add_ps(scaled_512(mapped, scales->table_scale, scales->table_zero),
                                     scaled_512(other, scales->other_scale, scales->other_zero));
    const __m512 steps = _mm512_fmadd_ps(sum, _mm512_set1_ps(scales->inverse), _mm512_set1_ps(scales->zero));
    return _mm512_cvtps_epi32(_mm512_min_ps(steps, _mm512_set1_ps(GREATEST)));
}

AVX512 static inline __m512i sum_32_512(__m512i mapped, __m512i other, const Scales *scales) {
    const __m512i upper = _mm512_set1_epi16(UPPER_HALF);
    const __m512i front = sum_16_512(_mm512_unpacklo_epi16(mapped, upper), _mm512_unpacklo_epi16(other, upper), scales);
    const __m512i back = sum_16_512(_mm512_unpackhi_epi16(mapped, upper), _mm512_unpackhi_epi16(other, upper), scales);
    return _mm512_packs_epi32(front, back);
}

AVX512 static inline void add_64(uint8_t *values, const uint8_t *other, __mmask64 which, const Quarters *table,
                                 const Scales *scales) {
    const __m512i a = look_up_512(_mm512_maskz_loadu_epi8(which, values), table);
    const __m512i b = _mm512_maskz_loadu_epi8(which, other), nought = _mm512_setzero_si512();
    const __m512i front = sum_32_512(_mm512_unpacklo_epi8(a, nought), _mm512_unpacklo_epi8(b, nought), scales);
    const __m512i back = sum_32_512(_mm512_unpackhi_epi8(a, nought), _mm512_unpackhi_epi8(b, nought), scales);
    _mm512_mask_storeu_epi8(values, which, _mm512_packus_epi16(front, back));
}

AVX512 static void add_avx512(uint8_t *values, const uint8_t *other, size_t count, const uint8_t *table,
                              const Scales *scales) {
    const Quarters quarters = quarters_of(table);
    for (size_t i = 0; i < count; i += 64)
        add_64(values + i, other + i, first_lanes(count - i), &quarters, scales);
}

static int has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
static int has_avx512_vbmi(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vbmi");
}
#endif

/* Fastest first; the last row ends the list. */
static const Kernel KERNELS[] = {
#if defined(__x86_64__) && defined(__GNUC__)
    {"avx512_vbmi", has_avx512_vbmi, map_avx512, add_avx512, quantize_avx2},
    {"avx2", has_avx2, map_avx2, add_avx2, quantize_avx2},
#endif
    {NULL, NULL, NULL, NULL, NULL},
};

/* Names of the kernels that run on this CPU, fastest first. */
static PyObject *kernels(PyObject *module, PyObject *nothing) {
    (void)module, (void)nothing;
    PyObject *names = PyList_New(0);
    for (const Kernel *kernel = KERNELS; names && kernel->name; kernel++) {
        if (!kernel->runs_here())
            continue;
        PyObject *name = PyUnicode_FromString(kernel->name);
        if (!name || PyList_Append(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

const Kernel *kernel_called(PyObject *name) {
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
    for (const Kernel *kernel = KERNELS; text && kernel->name; kernel++)
        if (strcmp(kernel->name, text) == 0 && kernel->runs_here())
            return kernel;
    if (text)
        PyErr_Format(PyExc_ValueError, "no kernel \"%s\" runs on this CPU", text);
    return NULL;
}

static int wrong_number(Py_ssize_t given, Py_ssize_t expected) {
    if (given != expected)
        PyErr_Format(PyExc_TypeError, "expected %zd arguments, not %zd", expected, given);
    return given != expected;
}

/* quantize(kernel, address to write to, address of planes of floats, their length and number, inverse of scale, zero) */
static PyObject *quantize(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    (void)module;
    const Kernel *kernel = wrong_number(given, 7) ? NULL : kernel_called(arguments[0]);
    if (!kernel)
        return NULL;
    uint8_t *to = PyLong_AsVoidPtr(arguments[1]);
    const Planes planes = {
        .values = PyLong_AsVoidPtr(arguments[2]),
        .count = PyLong_AsSize_t(arguments[3]),
        .num_planes = PyLong_AsSize_t(arguments[4]),
        .inverse = (float)PyFloat_AsDouble(arguments[5]),
        .zero = (float)PyFloat_AsDouble(arguments[6]),
    };
    if (!PyErr_Occurred() && planes.num_planes > MAX_PLANES)
        PyErr_Format(PyExc_ValueError, "expected at most %d planes, not %zd", MAX_PLANES, planes.num_planes);
    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    kernel->quantize(to, &planes);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* map_rows(kernel, address to write to, address to read from, length of a row, their count, strides of both, address of
       table) */
static PyObject *map_rows(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    (void)module;
    const Kernel *kernel = wrong_number(given, 8) ? NULL : kernel_called(arguments[0]);
    if (!kernel)
        return NULL;
    const Rows rows = {
        .to = PyLong_AsVoidPtr(arguments[1]),
        .from = PyLong_AsVoidPtr(arguments[2]),
        .length = PyLong_AsSize_t(arguments[3]),
        .count = PyLong_AsSize_t(arguments[4]),
        .to_stride = PyLong_AsSize_t(arguments[5]),
        .from_stride = PyLong_AsSize_t(arguments[6]),
    };
    const uint8_t *table = PyLong_AsVoidPtr(arguments[7]);
    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    kernel->map(&rows, table);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* add(kernel, address of values, address of other, their count, address of table,
       scale and zero of the table's entries, of the other's values, of the result) */
static PyObject *add(PyObject *module, PyObject *const *arguments, Py_ssize_t given) {
    (void)module;
    const Kernel *kernel = wrong_number(given, 11) ? NULL : kernel_called(arguments[0]);
    if (!kernel)
        return NULL;
    uint8_t *values = PyLong_AsVoidPtr(arguments[1]);
    const uint8_t *other = PyLong_AsVoidPtr(arguments[2]);
    const size_t count = PyLong_AsSize_t(arguments[3]);
    const uint8_t *table = PyLong_AsVoidPtr(arguments[4]);
    const Scales scales = {
        .table_scale = (float)PyFloat_AsDouble(arguments[5]),
        .table_zero = (float)PyFloat_AsDouble(arguments[6]),
        .other_scale = (float)PyFloat_AsDouble(arguments[7]),
        .other_zero = (float)PyFloat_AsDouble(arguments[8]),
        .inverse = 1.0f / (float)PyFloat_AsDouble(arguments[9]),
        .zero = (float)PyFloat_AsDouble(arguments[10]),
    };
    if (PyErr_Occurred())
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    kernel->add(values, other, count, table, &scales);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef METHODS[] = {
    {"kernels", kernels, METH_NOARGS, NULL},
    {"map_rows", (PyCFunction)(void (*)(void))map_rows, METH_FASTCALL, NULL},
    {"quantize", (PyCFunction)(void (*)(void))quantize, METH_FASTCALL, NULL},
    {"add", (PyCFunction)(void (*)(void))add, METH_FASTCALL, NULL},
    {"torch_functions", torch_functions, METH_NOARGS, NULL},
    {"register_operators", (PyCFunction)(void (*)(void))register_operators, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_byte_table", NULL, 0, METHODS, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__byte_table(void) { return PyModuleDef_Init(&MODULE); }
