#include "core.h"

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, .m_name = "_core", .m_doc = "See pipeline/compiled/__init__.py.", .m_size = -1
};

PyMODINIT_FUNC PyInit__core(void)
{
    struct {
        const char *name;
        PyTypeObject *type;
    } types[] = {{"Encoder", &EncoderType}, {"Entries", &EntriesType}, {"Putter", &PutterType}, {"Room", &RoomType}};
    PyObject *made = PyModule_Create(&module);
    if (made == NULL || intern_names() < 0)
        return NULL;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (PyType_Ready(types[i].type) < 0 || PyModule_AddObjectRef(made, types[i].name, (PyObject *)types[i].type) < 0) {
            Py_DECREF(made);
            return NULL;
        }
    return made;
}
