/* The encoded records of one aggregate in a row, as the message carries them: each with its sequence before it, counted from
   the first. The same as pipeline/produce/entries.py's Parts. Owned by the producer's lock, like the aggregate. */

#include "core.h"

int add_entry(Entries *entries, long long relative_seq, const char *bytes, Py_ssize_t size)
{
    if (entries->lent || entries->let_go) {
        PyErr_SetString(PyExc_BufferError, "an aggregate that is being sent takes no more records");
        return ERROR;
    }
    if (relative_seq < 0 || relative_seq > INT32_MAX || size > (Py_ssize_t)UINT32_MAX - VARINT_BYTES_MAX - entries->body.size) {
        PyErr_SetString(PyExc_OverflowError, "does not fit into 32 bits");
        return ERROR;
    }
    if (entries->count == entries->places_room) {
        Py_ssize_t room = entries->places_room * 2 + 16;
        Place *places = PyMem_Realloc(entries->places, (size_t)room * sizeof(Place));
        if (places == NULL) {
            PyErr_NoMemory();
            return ERROR;
        }
        entries->places = places;
        entries->places_room = room;
    }
    if (reserve(&entries->body, size + VARINT_BYTES_MAX) < 0)
        return ERROR;
    put_long(&entries->body, relative_seq);
    put_bytes(&entries->body, bytes, size);
    entries->places[entries->count++] = (Place){(uint32_t)entries->body.size, (uint32_t)relative_seq};
    entries->size_bytes += size;
    return DONE;
}

static PyObject *entries_add(Entries *entries, PyObject *arguments)
{
    long long relative_seq;
    Py_buffer body;
    if (!PyArg_ParseTuple(arguments, "Ly*", &relative_seq, &body))
        return NULL;
    int outcome = add_entry(entries, relative_seq, body.buf, body.len);
    PyBuffer_Release(&body);
    return outcome < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *entries_seq_at(Entries *entries, PyObject *argument)
{
    Py_ssize_t index = PyNumber_AsSsize_t(argument, PyExc_IndexError);
    if (index == -1 && PyErr_Occurred())
        return NULL;
    if (index < 0 || index >= entries->count) {
        PyErr_SetString(PyExc_IndexError, "no such record in the aggregate");
        return NULL;
    }
    return PyLong_FromLongLong(entries->first_seq + entries->places[index].relative_seq);
}

static PyObject *entries_bodies(Entries *entries, PyObject *arguments)
{
    Py_ssize_t step = 1;
    if (!PyArg_ParseTuple(arguments, "|n", &step))
        return NULL;
    PyObject *bodies = PyList_New(0);
    for (Py_ssize_t i = 0; bodies != NULL && !entries->let_go && i < entries->count; i += step > 0 ? step : 1) {
        char scratch[VARINT_BYTES_MAX];
        Py_ssize_t start = i ? entries->places[i - 1].end : 0;
        start += write_long(scratch, entries->places[i].relative_seq);
        PyObject *body = PyBytes_FromStringAndSize(entries->body.bytes + start, entries->places[i].end - start);
        if (body == NULL || PyList_Append(bodies, body) < 0)
            Py_CLEAR(bodies);
        Py_XDECREF(body);
    }
    return bodies;
}

/* Through the buffer protocol: the message is made of it without a copy between. */
static PyObject *entries_content(Entries *entries, PyObject *none) { return PyTuple_Pack(1, entries); }

static int entries_lend(Entries *entries, Py_buffer *view, int flags)
{
    int outcome = PyBuffer_FillInfo(view, (PyObject *)entries, entries->body.bytes, entries->body.size, 1, flags);
    entries->lent += outcome == 0;
    return outcome;
}

static void entries_take_back(Entries *entries, Py_buffer *view)
{
    if (--entries->lent == 0 && entries->let_go)
        release_buffer(&entries->body);
}

static PyObject *entries_let_go(Entries *entries, PyObject *none)
{
    entries->let_go = 1;
    if (!entries->lent)
        release_buffer(&entries->body);
    return Py_NewRef(Py_None);
}

static PyObject *entries_get_count(Entries *entries, void *closure) { return PyLong_FromSsize_t(entries->count); }

static void entries_dealloc(Entries *entries)
{
    release_buffer(&entries->body);
    PyMem_Free(entries->places);
    Py_TYPE(entries)->tp_free((PyObject *)entries);
}

static PyMethodDef entries_methods[] = {
    {"add", (PyCFunction)entries_add, METH_VARARGS, "add(relative_seq, body): one record more"},
    {"bodies", (PyCFunction)entries_bodies, METH_VARARGS,
     "bodies(step=1): the entries, each without its sequence; none once let go"},
    {"content", (PyCFunction)entries_content, METH_NOARGS, "content(): what the message carries"},
    {"let_go", (PyCFunction)entries_let_go, METH_NOARGS, "let_go(): free the bodies; sequences stay"},
    {"seq_at", (PyCFunction)entries_seq_at, METH_O, "seq_at(index): the sequence of a record"},
    {NULL},
};

static PyMemberDef entries_members[] = {
    {"first_seq", T_LONGLONG, offsetof(Entries, first_seq), 0, "sequence of the first record"},
    {"size_bytes", T_LONGLONG, offsetof(Entries, size_bytes), 0, "bytes of the entries without their sequences"},
    {NULL},
};

static PyGetSetDef entries_computed[] = {
    {"count", (getter)entries_get_count, NULL, "records", NULL},
    {NULL},
};

static PyBufferProcs entries_buffer = {(getbufferproc)entries_lend, (releasebufferproc)entries_take_back};

PyTypeObject EntriesType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pipeline.compiled._core.Entries",
    .tp_basicsize = sizeof(Entries),
    .tp_dealloc = (destructor)entries_dealloc,
    .tp_as_buffer = &entries_buffer,
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_methods = entries_methods,
    .tp_members = entries_members,
    .tp_getset = entries_computed,
    .tp_new = PyType_GenericNew,
};
