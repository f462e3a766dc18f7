/* ``put`` where nothing rare happens: encode, find the shard's open aggregate, append. The same as the middle of
   Producer.put (pipeline/produce/producer.py), which is called with the same arguments for all that is rare. */

#include <time.h>

#include "core.h"

/* What put moves for each record; the base of ProducerState. Owned by the producer's lock. */
typedef struct {
    PyObject_HEAD
    long long next_seq, full_seq, free_bytes;
} Room;

static PyMemberDef room_members[] = {
    {"next_seq", T_LONGLONG, offsetof(Room, next_seq), 0, "what the next record gets"},
    {"full_seq", T_LONGLONG, offsetof(Room, full_seq), 0, "the sequence at which the buffer is full"},
    {"free_bytes", T_LONGLONG, offsetof(Room, free_bytes), 0, "room left in the buffer"},
    {NULL},
};

PyTypeObject RoomType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pipeline.compiled._core.Room",
    .tp_basicsize = sizeof(Room),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .tp_members = room_members,
    .tp_new = PyType_GenericNew,
};

static PyObject *name_id, *name_timeout;

int intern_names(void)
{
    name_id = PyUnicode_InternFromString("id");
    name_timeout = PyUnicode_InternFromString("timeout");
    return name_id == NULL || name_timeout == NULL ? ERROR : DONE;
}

/* Where the objects of a class with __slots__ keep one of them: reading it there is much of what put costs. */
typedef struct {
    PyTypeObject *type;
    Py_ssize_t offset;
} Slot;

static int find_slot(Slot *slot, PyObject *type, const char *name)
{
    PyObject *found = PyObject_GetAttrString(type, name);
    if (found == NULL)
        return ERROR;
    if (!Py_IS_TYPE(found, &PyMemberDescr_Type) || ((PyMemberDescrObject *)found)->d_member->type != T_OBJECT_EX) {
        PyErr_Format(PyExc_TypeError, "%s is not a slot of %R", name, type);
        Py_DECREF(found);
        return ERROR;
    }
    slot->offset = ((PyMemberDescrObject *)found)->d_member->offset;
    slot->type = (PyTypeObject *)Py_NewRef(type);
    Py_DECREF(found);
    return DONE;
}

/* What the slot holds (borrowed); NULL, without an exception, for an object of another class, or where it holds nothing. */
static inline PyObject *read_slot(const Slot *slot, PyObject *object)
{
    return object != NULL && Py_IS_TYPE(object, slot->type) ? *(PyObject **)((char *)object + slot->offset) : NULL;
}

typedef struct {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    Encoder *encoder;
    Room *room;
    PyObject *lanes, *locked, *acquire, *release, *receipt;
    Slot open, entries; /* of a lane, of an aggregate */
    PyObject *slow;    /* Producer.put */
    PyObject *context; /* the variable that holds OpenTelemetry's context, None where it is not known */
    PyObject *spanned; /* whether a sampled span is active; None without OpenTelemetry */
    long long bytes_max, records_max, record_overhead_bytes;
    Buffer scratch;
    int busy; /* a converter that runs Python may let another thread in here */
} Putter;

static PyObject *call(Putter *putter, PyObject *const *arguments, size_t count, PyObject *names);

static PyObject *putter_new(PyTypeObject *type, PyObject *arguments, PyObject *named)
{
    PyObject *slow, *encoder, *room, *lanes, *lane, *aggregate, *lock, *receipt, *context, *spanned;
    long long bytes_max, records_max, record_overhead_bytes;
    static char *names[] = {"slow", "encoder", "room", "lanes", "lane", "aggregate", "lock", "receipt", "context",
                            "spanned", "bytes_max", "records_max", "record_overhead_bytes", NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, named, "OO!O!O!O!O!OO!OOLLL", names, &slow, &EncoderType, &encoder, &RoomType,
                                     &room, &PyDict_Type, &lanes, &PyType_Type, &lane, &PyType_Type, &aggregate, &lock,
                                     &PyType_Type, &receipt, &context, &spanned, &bytes_max, &records_max,
                                     &record_overhead_bytes))
        return NULL;
    if (!PyType_IsSubtype((PyTypeObject *)receipt, &PyTuple_Type) || !(context == Py_None || PyContextVar_CheckExact(context))) {
        PyErr_SetString(PyExc_TypeError, "receipt has to be a kind of tuple, context a ContextVar or None");
        return NULL;
    }
    Putter *putter = (Putter *)type->tp_alloc(type, 0);
    if (putter == NULL)
        return NULL;
    putter->vectorcall = (vectorcallfunc)call;
    putter->slow = Py_NewRef(slow);
    putter->encoder = (Encoder *)Py_NewRef(encoder);
    putter->room = (Room *)Py_NewRef(room);
    putter->lanes = Py_NewRef(lanes);
    putter->receipt = Py_NewRef(receipt);
    putter->context = Py_NewRef(context);
    putter->spanned = Py_NewRef(spanned);
    putter->locked = PyObject_GetAttrString(lock, "locked");
    putter->acquire = putter->locked == NULL ? NULL : PyObject_GetAttrString(lock, "acquire");
    putter->release = putter->acquire == NULL ? NULL : PyObject_GetAttrString(lock, "release");
    putter->bytes_max = bytes_max;
    putter->records_max = records_max;
    putter->record_overhead_bytes = record_overhead_bytes;
    if (putter->release == NULL || find_slot(&putter->open, lane, "open") < 0
        || find_slot(&putter->entries, aggregate, "entries") < 0)
        Py_CLEAR(putter);
    return (PyObject *)putter;
}

static int putter_traverse(Putter *putter, visitproc visit, void *arg)
{
    Py_VISIT(putter->encoder);
    Py_VISIT(putter->room);
    Py_VISIT(putter->lanes);
    Py_VISIT(putter->locked);
    Py_VISIT(putter->acquire);
    Py_VISIT(putter->release);
    Py_VISIT(putter->receipt);
    Py_VISIT(putter->slow);
    Py_VISIT(putter->context);
    Py_VISIT(putter->spanned);
    Py_VISIT(putter->open.type);
    Py_VISIT(putter->entries.type);
    return 0;
}

static int putter_clear(Putter *putter)
{
    Py_CLEAR(putter->slow); /* the only way back to the producer */
    return 0;
}

static void putter_dealloc(Putter *putter)
{
    PyObject_GC_UnTrack(putter);
    Py_XDECREF(putter->encoder);
    Py_XDECREF(putter->room);
    Py_XDECREF(putter->lanes);
    Py_XDECREF(putter->locked);
    Py_XDECREF(putter->acquire);
    Py_XDECREF(putter->release);
    Py_XDECREF(putter->receipt);
    Py_XDECREF(putter->slow);
    Py_XDECREF(putter->context);
    Py_XDECREF(putter->spanned);
    Py_XDECREF(putter->open.type);
    Py_XDECREF(putter->entries.type);
    release_buffer(&putter->scratch);
    Py_TYPE(putter)->tp_free((PyObject *)putter);
}

/* The open aggregate of the key's shard, if it takes the record; the record's index goes to ``at``. Runs no Python code: keys are
   exact strings. */
static PyObject *locked_append(Putter *putter, PyObject *key, Py_ssize_t *at)
{
    Room *room = putter->room;
    PyObject *lane = PyDict_GetItemWithError(putter->lanes, key);
    PyObject *aggregate = read_slot(&putter->open, lane), *held = read_slot(&putter->entries, aggregate);
    int taken = 0;
    if (held != NULL && Py_IS_TYPE(held, &EntriesType)) {
        Entries *entries = (Entries *)held;
        long long size = putter->scratch.size, free_bytes = room->free_bytes - size - putter->record_overhead_bytes;
        long long relative_seq = room->next_seq - entries->first_seq;
        /* The record that fills an aggregate goes the long way. */
        if (entries->size_bytes + size < putter->bytes_max && entries->count < putter->records_max - 1 && free_bytes >= 0
            && room->next_seq < room->full_seq && relative_seq >= 0 && relative_seq <= INT32_MAX) {
            *at = entries->count;
            taken = add_entry(entries, relative_seq, putter->scratch.bytes, putter->scratch.size) == DONE;
            if (taken) {
                room->free_bytes = free_bytes;
                room->next_seq++;
            }
        }
    }
    return taken ? Py_NewRef(aggregate) : NULL;
}

static PyObject *append_when_free(Putter *putter, PyObject *key, Py_ssize_t *at)
{
    PyObject *answer = PyObject_CallNoArgs(putter->acquire);
    if (answer == NULL)
        return NULL;
    Py_DECREF(answer);
    PyObject *aggregate = locked_append(putter, key, at);
    PyObject *kind, *error, *trace;
    PyErr_Fetch(&kind, &error, &trace);
    answer = PyObject_CallNoArgs(putter->release);
    if (answer == NULL) {
        Py_XDECREF(aggregate);
        return NULL;
    }
    Py_DECREF(answer);
    PyErr_Restore(kind, error, trace);
    return aggregate;
}

/* Where nobody holds the producer's lock, nobody takes it in here either: locked_append runs no Python code and so keeps the
   interpreter's own lock, without which another thread does not get past ``acquire``. */
static PyObject *append(Putter *putter, PyObject *key)
{
    Py_ssize_t index = 0;
    PyObject *held = PyObject_CallNoArgs(putter->locked);
    if (held == NULL)
        return NULL;
    PyObject *aggregate = held == Py_False ? locked_append(putter, key, &index) : append_when_free(putter, key, &index);
    Py_DECREF(held);
    if (aggregate == NULL)
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    PyObject *number = PyLong_FromSsize_t(index);
    PyTypeObject *type = (PyTypeObject *)putter->receipt;
    PyObject *receipt = number == NULL ? NULL : type->tp_alloc(type, 2);
    if (receipt == NULL) {
        Py_XDECREF(number);
        Py_DECREF(aggregate);
        return NULL;
    }
    PyTuple_SET_ITEM(receipt, 0, aggregate);
    PyTuple_SET_ITEM(receipt, 1, number);
    return receipt;
}

/* Whether a span has to go along; nearly always the context is empty. */
static int is_spanned(Putter *putter)
{
    if (putter->spanned == Py_None)
        return 0;
    if (putter->context != Py_None) {
        PyObject *active;
        if (PyContextVar_Get(putter->context, Py_None, &active) < 0)
            return ERROR;
        int anything = PyObject_IsTrue(active);
        Py_DECREF(active);
        if (anything <= 0)
            return anything;
    }
    PyObject *answer = PyObject_CallNoArgs(putter->spanned);
    if (answer == NULL)
        return ERROR;
    int spanned = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return spanned;
}

/* The receipt; None where the record has to go the long way (nothing was taken then). */
static PyObject *take(Putter *putter, PyObject *value, PyObject *key, PyObject *id)
{
    if (putter->busy || !PyUnicode_CheckExact(key))
        return Py_NewRef(Py_None);
    int spanned = is_spanned(putter);
    if (spanned)
        return spanned < 0 ? NULL : Py_NewRef(Py_None);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    putter->busy = 1;
    putter->scratch.size = 0;
    int outcome = encode_entry(putter->encoder, &putter->scratch, key, id,
                               (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000, value);
    PyObject *receipt = outcome == DONE ? append(putter, key) : outcome == GIVEN_UP ? Py_NewRef(Py_None) : NULL;
    if (putter->scratch.room > 1 << 20)
        release_buffer(&putter->scratch);
    putter->busy = 0;
    return receipt;
}

/* The id among the named arguments, borrowed; NULL where one is given that only the long way knows. Waiting is its own, too. */
static PyObject *id_among(PyObject *const *values, PyObject *names)
{
    PyObject *id = Py_None;
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (name == name_id)
            id = values[i];
        else if (name != name_timeout && values[i] != Py_None)
            return NULL;
    }
    return id;
}

static PyObject *call(Putter *putter, PyObject *const *arguments, size_t count, PyObject *names)
{
    if (PyVectorcall_NARGS(count) == 2) {
        PyObject *id = id_among(arguments + 2, names);
        PyObject *receipt = id == NULL ? Py_NewRef(Py_None) : take(putter, arguments[0], arguments[1], id);
        if (receipt != Py_None)
            return receipt;
        Py_DECREF(receipt);
    }
    if (putter->slow == NULL) {
        PyErr_SetString(PyExc_ReferenceError, "the producer is gone");
        return NULL;
    }
    return PyObject_Vectorcall(putter->slow, arguments, count, names);
}

static PyMemberDef putter_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Putter, vectorcall), READONLY, NULL},
    {"__wrapped__", T_OBJECT_EX, offsetof(Putter, slow), READONLY, "what it does, in Python"},
    {NULL},
};

PyTypeObject PutterType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pipeline.compiled._core.Putter",
    .tp_basicsize = sizeof(Putter),
    .tp_dealloc = (destructor)putter_dealloc,
    .tp_vectorcall_offset = offsetof(Putter, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_traverse = (traverseproc)putter_traverse,
    .tp_clear = (inquiry)putter_clear,
    .tp_members = putter_members,
    .tp_new = putter_new,
};
