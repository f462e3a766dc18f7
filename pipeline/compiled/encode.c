/* From a Python value to Avro bytes, by a program that program.py makes of a schema.

   A node of the program is a tuple (kind, …); see ``make_node``. Values of the exact types that records mostly hold are written
   here; one of another type goes through the node's converter, a Python function, or is given up. Nothing is written that
   interpret.py would not write. Converters may run anybody's code, so what a value holds is held while it is looked at. */

#include "core.h"

enum Kind { NULLS, BOOLEAN, INTEGER, REAL32, REAL64, STRING, BYTES, FIXED, ENUM, OPTIONAL, RECORD, ARRAY, MAP, CALL, KINDS };

typedef struct Node {
    enum Kind kind;
    int always_convert;
    char none_index, other_index; /* of an optional: the union's index, as its one byte */
    long long low, high;
    Py_ssize_t size; /* fields of a record, bytes of a fixed */
    PyObject *function; /* a converter; of CALL what encodes the value; of an enum its symbols */
    PyObject *names;
    struct Node **children;
} Node;

static void free_node(Node *node)
{
    if (node == NULL)
        return;
    Py_ssize_t children = node->kind == RECORD ? node->size : 1;
    for (Py_ssize_t i = 0; node->children != NULL && i < children; i++)
        free_node(node->children[i]);
    PyMem_Free(node->children);
    Py_XDECREF(node->function);
    Py_XDECREF(node->names);
    PyMem_Free(node);
}

static Node *make_node(PyObject *described);

static int make_children(Node *node, PyObject *described)
{
    Py_ssize_t count = PyTuple_GET_SIZE(described);
    node->children = PyMem_Calloc(count ? (size_t)count : 1, sizeof(Node *));
    if (node->children == NULL) {
        PyErr_NoMemory();
        return ERROR;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        node->children[i] = make_node(PyTuple_GET_ITEM(described, i));
        if (node->children[i] == NULL)
            return ERROR;
    }
    return DONE;
}

/* (kind, function or None, always_convert, low, high, size, none_index, other_index, names, children) */
static Node *make_node(PyObject *described)
{
    int kind;
    PyObject *function, *names, *children;
    Node *node = PyMem_Calloc(1, sizeof(Node));
    if (node == NULL)
        return (Node *)PyErr_NoMemory();
    if (!PyArg_ParseTuple(described, "iOpLLnbbO!O!", &kind, &function, &node->always_convert, &node->low, &node->high,
                          &node->size, &node->none_index, &node->other_index, &PyTuple_Type, &names, &PyTuple_Type, &children)
        || kind < 0 || kind >= KINDS || (kind == RECORD && PyTuple_GET_SIZE(names) != node->size)
        || (kind == RECORD && PyTuple_GET_SIZE(children) != node->size)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "not a node of an encoder's program");
        PyMem_Free(node);
        return NULL;
    }
    node->kind = (enum Kind)kind;
    node->names = Py_NewRef(names);
    node->function = function == Py_None ? NULL : Py_NewRef(function);
    if (make_children(node, children) < 0) {
        free_node(node);
        return NULL;
    }
    return node;
}

/* After a Python function raised: an ordinary exception is a value given up, anything else goes on (Ctrl-C). */
static int given_up_or_error(void)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception) || PyErr_ExceptionMatches(PyExc_MemoryError))
        return ERROR;
    PyErr_Clear();
    return GIVEN_UP;
}

static int put_text(Buffer *buffer, PyObject *text)
{
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(text) < 0)
        return given_up_or_error();
#endif
    if (PyUnicode_IS_COMPACT_ASCII(text)) {
        Py_ssize_t size = PyUnicode_GET_LENGTH(text);
        if (size > INT32_MAX)
            return GIVEN_UP;
        return put_long(buffer, size) < 0 ? ERROR : put_bytes(buffer, (const char *)PyUnicode_1BYTE_DATA(text), size);
    }
    PyObject *raw = PyUnicode_AsUTF8String(text); /* not AsUTF8: that keeps a second copy in the caller's string */
    if (raw == NULL)
        return given_up_or_error();
    int outcome = GIVEN_UP;
    if (PyBytes_GET_SIZE(raw) <= INT32_MAX)
        outcome = put_long(buffer, PyBytes_GET_SIZE(raw)) < 0 ? ERROR
                                                               : put_bytes(buffer, PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw));
    Py_DECREF(raw);
    return outcome;
}

static int put_raw(Buffer *buffer, PyObject *raw)
{
    Py_ssize_t size = PyBytes_GET_SIZE(raw);
    if (size > INT32_MAX)
        return GIVEN_UP;
    return put_long(buffer, size) < 0 ? ERROR : put_bytes(buffer, PyBytes_AS_STRING(raw), size);
}

static int put_real(Buffer *buffer, Node *node, double number)
{
    int size = node->kind == REAL32 ? 4 : 8;
    if (reserve(buffer, size) < 0)
        return ERROR;
    char *to = buffer->bytes + buffer->size;
    int failed = size == 4 ? PyFloat_Pack4(number, to, 1) : PyFloat_Pack8(number, to, 1);
    if (failed)
        return given_up_or_error(); /* too large for 32 bits */
    buffer->size += size;
    return DONE;
}

/* A value that needs no converter, or came out of one. */
static int put_primitive(Node *node, Buffer *buffer, PyObject *value)
{
    switch (node->kind) {
    case INTEGER: {
        int overflow;
        if (!PyLong_CheckExact(value))
            return GIVEN_UP;
        long long number = PyLong_AsLongLongAndOverflow(value, &overflow);
        if (overflow || number < node->low || number > node->high)
            return GIVEN_UP;
        return put_long(buffer, number);
    }
    case REAL32:
    case REAL64:
        return PyFloat_CheckExact(value) ? put_real(buffer, node, PyFloat_AS_DOUBLE(value)) : GIVEN_UP;
    case STRING:
        return PyUnicode_Check(value) ? put_text(buffer, value) : GIVEN_UP;
    case BYTES:
        return PyBytes_CheckExact(value) ? put_raw(buffer, value) : GIVEN_UP;
    case FIXED:
        if (!PyBytes_CheckExact(value) || PyBytes_GET_SIZE(value) != node->size)
            return GIVEN_UP;
        return put_bytes(buffer, PyBytes_AS_STRING(value), node->size);
    default:
        return GIVEN_UP;
    }
}

static int is_ready(Node *node, PyObject *value)
{
    if (node->always_convert || node->function == NULL)
        return node->function == NULL;
    return node->kind == INTEGER ? PyLong_CheckExact(value) : PyFloat_CheckExact(value);
}

static int encode_primitive(Node *node, Buffer *buffer, PyObject *value)
{
    if (is_ready(node, value))
        return put_primitive(node, buffer, value);
    PyObject *converted = PyObject_CallOneArg(node->function, value);
    if (converted == NULL)
        return given_up_or_error();
    int outcome = put_primitive(node, buffer, converted);
    Py_DECREF(converted);
    return outcome;
}

static int encode_value(Node *node, Buffer *buffer, PyObject *value);

static inline int encode_held(Node *node, Buffer *buffer, PyObject *value)
{
    Py_INCREF(value);
    int outcome = encode_value(node, buffer, value);
    Py_DECREF(value);
    return outcome;
}

static inline int same_name(PyObject *name, PyObject *other)
{
    if (name == other)
        return 1;
    if (!PyUnicode_CheckExact(other))
        return 0;
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(other) < 0) {
        PyErr_Clear();
        return 0;
    }
#endif
    return PyUnicode_IS_COMPACT_ASCII(name) && PyUnicode_IS_COMPACT_ASCII(other)
           && PyUnicode_GET_LENGTH(name) == PyUnicode_GET_LENGTH(other)
           && memcmp(PyUnicode_1BYTE_DATA(name), PyUnicode_1BYTE_DATA(other), (size_t)PyUnicode_GET_LENGTH(name)) == 0;
}

static int has_only_strings(PyObject *dict)
{
    Py_ssize_t at = 0;
    PyObject *key, *value;
    while (PyDict_Next(dict, &at, &key, &value))
        if (!PyUnicode_CheckExact(key))
            return 0;
    return 1;
}

/* A dict with exactly the record's fields. Most hold them in the schema's order: then nothing is looked up. */
static int encode_record(Node *node, Buffer *buffer, PyObject *dict)
{
    if (!PyDict_CheckExact(dict) || PyDict_GET_SIZE(dict) != node->size)
        return GIVEN_UP;
    int in_order = 1;
    Py_ssize_t at = 0;
    for (Py_ssize_t i = 0; i < node->size; i++) {
        PyObject *name = PyTuple_GET_ITEM(node->names, i), *key, *value;
        if (in_order && !(PyDict_Next(dict, &at, &key, &value) && same_name(name, key))) {
            in_order = 0;
            if (!has_only_strings(dict)) /* a look-up would run what other keys take for equality */
                return GIVEN_UP;
        }
        if (!in_order) {
            value = PyDict_GetItemWithError(dict, name);
            if (value == NULL)
                return PyErr_Occurred() ? given_up_or_error() : GIVEN_UP;
        }
        int outcome = encode_held(node->children[i], buffer, value);
        if (outcome != DONE)
            return outcome;
    }
    return PyDict_GET_SIZE(dict) == node->size ? DONE : GIVEN_UP;
}

static int encode_array(Node *node, Buffer *buffer, PyObject *list)
{
    if (!PyList_CheckExact(list))
        return GIVEN_UP;
    Py_ssize_t count = PyList_GET_SIZE(list);
    if (count > INT32_MAX)
        return GIVEN_UP;
    if (count && put_long(buffer, count) < 0)
        return ERROR;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyList_GET_SIZE(list) != count)
            return GIVEN_UP;
        int outcome = encode_held(node->children[0], buffer, PyList_GET_ITEM(list, i));
        if (outcome != DONE)
            return outcome;
    }
    return put_byte(buffer, 0);
}

static int encode_map(Node *node, Buffer *buffer, PyObject *dict)
{
    if (!PyDict_CheckExact(dict))
        return GIVEN_UP;
    Py_ssize_t count = PyDict_GET_SIZE(dict), at = 0, written = 0;
    PyObject *key, *value;
    if (count > INT32_MAX)
        return GIVEN_UP;
    if (count && put_long(buffer, count) < 0)
        return ERROR;
    while (PyDict_Next(dict, &at, &key, &value)) {
        int outcome = PyUnicode_Check(key) ? put_text(buffer, key) : GIVEN_UP;
        if (outcome == DONE)
            outcome = encode_held(node->children[0], buffer, value);
        if (outcome != DONE)
            return outcome;
        written++;
        if (PyDict_GET_SIZE(dict) != count)
            return GIVEN_UP;
    }
    return written == count ? put_byte(buffer, 0) : GIVEN_UP;
}

static int encode_by_call(Node *node, Buffer *buffer, PyObject *value)
{
    PyObject *raw = PyObject_CallOneArg(node->function, value);
    if (raw == NULL)
        return given_up_or_error();
    int outcome = PyBytes_CheckExact(raw) ? put_bytes(buffer, PyBytes_AS_STRING(raw), PyBytes_GET_SIZE(raw)) : GIVEN_UP;
    Py_DECREF(raw);
    return outcome;
}

static int encode_value(Node *node, Buffer *buffer, PyObject *value)
{
    switch (node->kind) {
    case NULLS:
        return value == Py_None ? DONE : GIVEN_UP;
    case BOOLEAN:
        return value == Py_True ? put_byte(buffer, 1) : value == Py_False ? put_byte(buffer, 0) : GIVEN_UP;
    case ENUM: {
        if (!PyUnicode_CheckExact(value))
            return GIVEN_UP;
        PyObject *index = PyDict_GetItemWithError(node->function, value);
        if (index == NULL)
            return PyErr_Occurred() ? given_up_or_error() : GIVEN_UP;
        return put_bytes(buffer, PyBytes_AS_STRING(index), PyBytes_GET_SIZE(index));
    }
    case OPTIONAL:
        if (value == Py_None)
            return put_byte(buffer, node->none_index);
        return put_byte(buffer, node->other_index) < 0 ? ERROR : encode_value(node->children[0], buffer, value);
    case RECORD:
        return encode_record(node, buffer, value);
    case ARRAY:
        return encode_array(node, buffer, value);
    case MAP:
        return encode_map(node, buffer, value);
    case CALL:
        return encode_by_call(node, buffer, value);
    default:
        return encode_primitive(node, buffer, value);
    }
}

static int encode_front(Buffer *buffer, PyObject *key, PyObject *id, long long timestamp_ms)
{
    int outcome = PyUnicode_Check(key) ? put_text(buffer, key) : GIVEN_UP;
    if (outcome != DONE)
        return outcome;
    if (id == Py_None)
        outcome = put_byte(buffer, 0);
    else if (PyUnicode_Check(id))
        outcome = put_byte(buffer, 2) < 0 ? ERROR : put_text(buffer, id);
    else
        return GIVEN_UP;
    if (outcome != DONE)
        return outcome;
    return put_byte(buffer, 0) < 0 || put_long(buffer, timestamp_ms) < 0 || put_byte(buffer, 0) < 0 ? ERROR : DONE;
}

static int encode_whole_entry(Encoder *encoder, Buffer *buffer, PyObject *key, PyObject *id, long long timestamp_ms,
                              PyObject *value)
{
    int outcome = encode_front(buffer, key, id, timestamp_ms);
    if (outcome != DONE)
        return outcome;
    if (value == Py_None)
        return put_byte(buffer, 0);
    if (put_byte(buffer, 2) < 0)
        return ERROR;
    if (encoder->raw && PyBytes_CheckExact(value))
        return put_raw(buffer, value);
    return encode_value(encoder->root, buffer, value);
}

int encode_entry(Encoder *encoder, Buffer *buffer, PyObject *key, PyObject *id, long long timestamp_ms, PyObject *value)
{
    Py_ssize_t before = buffer->size;
    int outcome = encode_whole_entry(encoder, buffer, key, id, timestamp_ms, value);
    if (outcome != DONE)
        buffer->size = before;
    return outcome;
}

static PyObject *encoder_new(PyTypeObject *type, PyObject *arguments, PyObject *named)
{
    PyObject *program;
    int raw;
    static char *names[] = {"program", "raw", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "O!p", names, &PyTuple_Type, &program, &raw))
        return NULL;
    Node *root = make_node(program);
    if (root == NULL)
        return NULL;
    Encoder *encoder = (Encoder *)type->tp_alloc(type, 0);
    if (encoder == NULL) {
        free_node(root);
        return NULL;
    }
    encoder->root = root;
    encoder->raw = raw;
    return (PyObject *)encoder;
}

static void encoder_dealloc(Encoder *encoder)
{
    free_node(encoder->root);
    Py_TYPE(encoder)->tp_free((PyObject *)encoder);
}

static PyObject *encoder_encode(Encoder *encoder, PyObject *arguments)
{
    PyObject *key, *id, *value, *made = NULL;
    long long timestamp_ms;
    Buffer buffer = {0};
    if (!PyArg_ParseTuple(arguments, "OOLO", &key, &id, &timestamp_ms, &value))
        return NULL;
    int outcome = encode_entry(encoder, &buffer, key, id, timestamp_ms, value);
    if (outcome == DONE)
        made = PyBytes_FromStringAndSize(buffer.bytes, buffer.size);
    release_buffer(&buffer);
    return outcome == GIVEN_UP ? Py_NewRef(Py_None) : made;
}

static PyMethodDef encoder_methods[] = {
    {"encode", (PyCFunction)encoder_encode, METH_VARARGS, "encode(key, id, timestamp_ms, value): the entry's bytes, or None"},
    {NULL},
};

PyTypeObject EncoderType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pipeline.compiled._core.Encoder",
    .tp_basicsize = sizeof(Encoder),
    .tp_dealloc = (destructor)encoder_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = encoder_methods,
    .tp_new = encoder_new,
};
