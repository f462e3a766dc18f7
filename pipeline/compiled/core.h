/* What the parts of pipeline.compiled._core share. See __init__.py for what it is and what it must never be. */
#ifndef HEADRACE_CORE_H
#define HEADRACE_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>

/* Outcomes of encoding: what is given up is left to the Python encoder, which knows every rule and words the errors. */
enum { ERROR = -1, GIVEN_UP = 0, DONE = 1 };

typedef struct {
    char *bytes;
    Py_ssize_t size, room;
} Buffer;

/* What a buffer has beyond its content is bounded too: the producer's bound on memory counts the content. */
enum { SPARE_BYTES_MAX = 16 * 1024 };

static inline int reserve(Buffer *buffer, Py_ssize_t more)
{
    if (buffer->room - buffer->size >= more)
        return DONE;
    if (more > PY_SSIZE_T_MAX / 2 - buffer->size) {
        PyErr_NoMemory();
        return ERROR;
    }
    Py_ssize_t needed = buffer->size + more, spare = needed / 2 + 64;
    Py_ssize_t room = needed + (spare < SPARE_BYTES_MAX ? spare : SPARE_BYTES_MAX);
    char *bytes = PyMem_Realloc(buffer->bytes, (size_t)room);
    if (bytes == NULL) {
        PyErr_NoMemory();
        return ERROR;
    }
    buffer->bytes = bytes;
    buffer->room = room;
    return DONE;
}

static inline void release_buffer(Buffer *buffer)
{
    PyMem_Free(buffer->bytes);
    *buffer = (Buffer){0};
}

enum { VARINT_BYTES_MAX = 10 };

/* Avro's zigzag varint; returns how many bytes it took. */
static inline Py_ssize_t write_long(char *to, long long number)
{
    uint64_t rest = ((uint64_t)number << 1) ^ (number < 0 ? UINT64_MAX : 0);
    Py_ssize_t size = 0;
    while (rest > 0x7F) {
        to[size++] = (char)((rest & 0x7F) | 0x80);
        rest >>= 7;
    }
    to[size++] = (char)rest;
    return size;
}

static inline int put_long(Buffer *buffer, long long number)
{
    if (reserve(buffer, VARINT_BYTES_MAX) < 0)
        return ERROR;
    buffer->size += write_long(buffer->bytes + buffer->size, number);
    return DONE;
}

static inline int put_bytes(Buffer *buffer, const char *bytes, Py_ssize_t size)
{
    if (reserve(buffer, size) < 0)
        return ERROR;
    memcpy(buffer->bytes + buffer->size, bytes, (size_t)size);
    buffer->size += size;
    return DONE;
}

static inline int put_byte(Buffer *buffer, char byte) { return put_bytes(buffer, &byte, 1); }

/* encode.c */
typedef struct {
    PyObject_HEAD
    struct Node *root;
    int raw; /* one field of bytes: they may be given without a dict around them */
} Encoder;

extern PyTypeObject EncoderType;
/* Appends the entry (everything of HeadraceEntry after seq; salt 0, no headers), or leaves the buffer as it was. */
int encode_entry(Encoder *encoder, Buffer *buffer, PyObject *key, PyObject *id, long long timestamp_ms, PyObject *value);

/* entries.c */
typedef struct {
    uint32_t end, relative_seq;
} Place;

typedef struct {
    PyObject_HEAD
    long long first_seq, size_bytes;
    Buffer body;
    Place *places;
    Py_ssize_t count, places_room;
    int lent, let_go; /* how often its bytes are being read through the buffer protocol; whether they are wanted no more */
} Entries;

extern PyTypeObject EntriesType;
int add_entry(Entries *entries, long long relative_seq, const char *bytes, Py_ssize_t size);

/* put.c */
extern PyTypeObject RoomType, PutterType;
int intern_names(void);

#endif
