/* The C code of the compiled core: what Cython cannot express, or only with more calls. core.pxd declares it.
 *
 * Where a platform lacks something, its constant is 0, and its functions are stubs that the core does not call. */

#ifndef OBSLOOP_NATIVE_H
#define OBSLOOP_NATIVE_H

#include <Python.h>
#include <stdint.h>
#include <time.h>

/* ---- the clock, and polls (clock.pxi, iteration.pxi) ---- */

#if defined(__linux__)
#include <sys/epoll.h>
#define OBSLOOP_EPOLL 1
#define OBSLOOP_CLOCK 1
static inline int64_t obsloop_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
#elif defined(__APPLE__)
#define OBSLOOP_CLOCK 1
static inline int64_t obsloop_now(void) { return (int64_t)clock_gettime_nsec_np(CLOCK_UPTIME_RAW); }
#else
#define OBSLOOP_CLOCK 0
static inline int64_t obsloop_now(void) { return 0; }
#endif

#ifndef OBSLOOP_EPOLL
#define OBSLOOP_EPOLL 0
struct epoll_event { uint32_t events; union { int fd; } data; };
static int epoll_wait(int epfd, struct epoll_event *e, int n, int t) { (void)epfd; (void)e; (void)n; (void)t; return -1; }
#endif

/* ---- the highest set bit (buckets.pxi) ---- */

#if defined(_MSC_VER)
#include <intrin.h>
static inline int obsloop_msb(uint64_t v) { unsigned long i; _BitScanReverse64(&i, v); return (int)i; }
#else
static inline int obsloop_msb(uint64_t v) { return 63 - __builtin_clzll(v); }
#endif

/* ---- whether a class has been changed (iteration.pxi) ---- */

/* CPython gives a class a new number after each change; 0 stands for none at present. */
static inline unsigned int obsloop_version_of(PyObject *cls) { return ((PyTypeObject *)cls)->tp_version_tag; }

/* ---- what the watchdog reads and writes without the GIL, while the loop's thread runs (wakeup.pxi) ---- */

#if defined(__GNUC__) && UINTPTR_MAX > 0xffffffffu
static inline int64_t obsloop_load(const int64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static inline void obsloop_store(int64_t *p, int64_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
static inline void obsloop_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
#else
static inline int64_t obsloop_load(const int64_t *p) { return *(const volatile int64_t *)p; }
static inline void obsloop_store(int64_t *p, int64_t v) { *(volatile int64_t *)p = v; }
static inline void obsloop_fence(void) { }
#endif

#if defined(__linux__)
#include <sys/resource.h>
#define OBSLOOP_LOOKS 1
/* The CPU time of a thread, by its kernel id, with the clock of pthread_getcpuclockid(); -1 if the thread is gone. */
static inline int64_t obsloop_cpu_time(int64_t native_id) {
    struct timespec t;
    if (clock_gettime((clockid_t)((~(unsigned int)native_id << 3) | 6), &t) != 0) return -1;
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}
/* How often this thread was taken off its CPU; -1 on an error. */
static inline int64_t obsloop_switches(void) {
    struct rusage used;
    if (getrusage(RUSAGE_THREAD, &used) != 0) return -1;
    return (int64_t)used.ru_nvcsw + used.ru_nivcsw;
}
#else
#define OBSLOOP_LOOKS 0
static inline int64_t obsloop_cpu_time(int64_t native_id) { (void)native_id; return -1; }
static inline int64_t obsloop_switches(void) { return -1; }
#endif

/* ---- loop.time (clock.pxi) ---- */

/* Changes with the class and with each of its bases; 0 if unknown. */
static inline unsigned int obsloop_class_tag(PyObject *obj) { return Py_TYPE(obj)->tp_version_tag; }
/* Do two dictionaries hold what they held at the last `obsloop_note_unchanged`? Without a look-up: by their versions (PEP 509)
 * up to CPython 3.11, then by a watcher, which the interpreter calls before it changes one of them. */
#if PY_VERSION_HEX < 0x030C0000
static uint64_t obsloop_version_a = 0, obsloop_version_b = 0;
static inline int obsloop_unchanged(PyObject *a, PyObject *b) {
    return ((PyDictObject *)a)->ma_version_tag == obsloop_version_a
        && ((PyDictObject *)b)->ma_version_tag == obsloop_version_b;
}
static void obsloop_note_unchanged(PyObject *a, PyObject *b) {
    obsloop_version_a = ((PyDictObject *)a)->ma_version_tag;
    obsloop_version_b = ((PyDictObject *)b)->ma_version_tag;
}
static int obsloop_watch(PyObject *a, PyObject *b) { (void)a; (void)b; return 0; }
#else
static int obsloop_watched = 0, obsloop_same = 0;
static int obsloop_changes(PyDict_WatchEvent event, PyObject *dict, PyObject *key, PyObject *value) {
    (void)event; (void)dict; (void)key; (void)value;
    obsloop_same = 0;
    return 0;
}
static inline int obsloop_unchanged(PyObject *a, PyObject *b) { (void)a; (void)b; return obsloop_same; }
static void obsloop_note_unchanged(PyObject *a, PyObject *b) { (void)a; (void)b; obsloop_same = obsloop_watched; }
/* An interpreter has eight watchers. If other code has taken all, the dictionaries are looked up each time. */
static int obsloop_watch(PyObject *a, PyObject *b) {
    int watcher = PyDict_AddWatcher(obsloop_changes);
    if (watcher < 0) { PyErr_Clear(); return 0; }
    if (PyDict_Watch(watcher, a) < 0 || PyDict_Watch(watcher, b) < 0) return -1;
    obsloop_watched = 1;
    return 0;
}
#endif

/* ---- handles (handles.pxi) ---- */

static int obsloop_leave_context(PyObject *context, PyObject *result) {
    if (PyContext_Exit(context) < 0 || result == NULL) {
        Py_XDECREF(result);
        return -1;
    }
    Py_DECREF(result);
    return 0;
}

static inline void obsloop_hide(PyObject *handle) { PyObject_GC_UnTrack(handle); }
static inline void obsloop_show(PyObject *handle, Py_ssize_t ours) {
    if (Py_REFCNT(handle) > ours && !PyObject_GC_IsTracked(handle)) PyObject_GC_Track(handle);
}

/* ---- the queue of ready handles: a deque (scheduling.pxi) ---- */

/* The C functions behind deque.append and deque.popleft, called without a look-up; NULL if they are not as expected. */
static PyCFunction obsloop_deque_append = NULL, obsloop_deque_popleft = NULL;
static PyTypeObject *obsloop_deque = NULL;

static PyCFunction obsloop_method(PyObject *type, const char *name, int flags) {
    PyCFunction found = NULL;
    PyObject *method = PyObject_GetAttrString(type, name);
    if (method == NULL) { PyErr_Clear(); return NULL; }
    if (Py_IS_TYPE(method, &PyMethodDescr_Type) && ((PyMethodDescrObject *)method)->d_method->ml_flags == flags)
        found = ((PyMethodDescrObject *)method)->d_method->ml_meth;
    Py_DECREF(method);
    return found;
}

static void obsloop_learn_deque(PyObject *type) {
    obsloop_deque_append = obsloop_method(type, "append", METH_O);
    obsloop_deque_popleft = obsloop_method(type, "popleft", METH_NOARGS);
    if (obsloop_deque_append != NULL && obsloop_deque_popleft != NULL) obsloop_deque = (PyTypeObject *)type;
}

static inline PyObject *obsloop_append(PyObject *queue, PyObject *item) {
    if (Py_TYPE(queue) == obsloop_deque) return obsloop_deque_append(queue, item);
    return PyObject_CallMethod(queue, "append", "O", item);
}

static inline PyObject *obsloop_popleft(PyObject *queue) {
    if (Py_TYPE(queue) == obsloop_deque) return obsloop_deque_popleft(queue, NULL);
    return PyObject_CallMethod(queue, "popleft", NULL);
}

/* ---- the record of a live task (task_table.pxi) ---- */

typedef struct {
    PyObject *task;             /* only its address: it may have died, see `bury` */
    PyObject *measurement;            /* owned; NULL for none */
    int64_t created_ns;         /* of a free record: the number of the next free one */
    int64_t run_ns;
    int64_t wait_ns;
    uint64_t steps : 48;  /* 32 bits would be full after an hour of steps without a pause */
    uint64_t coroutine : 15;
    uint64_t called : 1;  /* the last roll call that it answered, see `begin_roll_call` */
} obsloop_record;

/* ---- the steps of tasks (task_steps.pxi) ---- */

/* The task of a step's callback, read where the C type keeps it. The core tries this on a real one first. */
static inline PyObject *obsloop_first_field(PyObject *step) { return *(PyObject **)(step + 1); }

/* The code of a Python coroutine, borrowed; NULL for anything else. */
static inline PyObject *obsloop_code(PyObject *coro) {
    PyObject *code;
    if (!PyCoro_CheckExact(coro)) return NULL;
#if PY_VERSION_HEX < 0x030C0000
    code = (PyObject *)((PyCoroObject *)coro)->cr_code;
#elif defined(Py_DEBUG)
    code = PyObject_GetAttrString(coro, "cr_code");
    Py_XDECREF(code);
#else
    code = (PyObject *)PyGen_GetCode((PyGenObject *)coro);
    Py_XDECREF(code);  /* the coroutine keeps it alive */
#endif
    return code;
}

/* The methods `done` and `cancelled` of asyncio's C task, called without a look-up; NULL if not as expected. */
static PyCFunction obsloop_task_done = NULL, obsloop_task_cancelled = NULL;
static PyTypeObject *obsloop_task_type = NULL;
static void obsloop_learn_task(PyObject *type) {
    obsloop_task_done = obsloop_method(type, "done", METH_NOARGS);
    obsloop_task_cancelled = obsloop_method(type, "cancelled", METH_NOARGS);
    if (obsloop_task_done != NULL && obsloop_task_cancelled != NULL) obsloop_task_type = (PyTypeObject *)type;
}
/* Return 1, 0, or -1 with an error set. */
static inline int obsloop_ask(PyObject *task, PyCFunction method, const char *name) {
    PyObject *answer;
    int yes;
    if (obsloop_task_type != NULL && PyObject_TypeCheck(task, obsloop_task_type)) answer = method(task, NULL);
    else answer = PyObject_CallMethod(task, name, NULL);
    if (answer == NULL) return -1;
    yes = PyObject_IsTrue(answer);
    Py_DECREF(answer);
    return yes;
}
static inline int obsloop_is_done(PyObject *task) { return obsloop_ask(task, obsloop_task_done, "done"); }
static inline int obsloop_is_cancelled(PyObject *task) {
    return obsloop_ask(task, obsloop_task_cancelled, "cancelled");
}

/* ---- sockets (socket_io.pxi) ---- */

/* The descriptor of a `_socket.socket`, its first field; -1 if closed. Checked against `fileno()` before use. */
static inline int obsloop_descriptor_of(PyObject *sock) { return *(const int *)((const char *)sock + sizeof(PyObject)); }

#if defined(_WIN32)
#define OBSLOOP_WIRE 0
static Py_ssize_t obsloop_recv(int fd, void *p, size_t n) { (void)fd; (void)p; (void)n; return -1; }
static Py_ssize_t obsloop_send(int fd, const void *p, size_t n) { (void)fd; (void)p; (void)n; return -1; }
static int obsloop_would_block(int e) { (void)e; return 0; }
static Py_ssize_t obsloop_recvfrom(int fd, void *p, size_t n, PyObject **from) {
    (void)fd; (void)p; (void)n; (void)from;
    return -1;
}
static Py_ssize_t obsloop_sendto(int fd, const void *p, size_t n, int family, PyObject *sock, PyObject *address) {
    (void)fd; (void)p; (void)n; (void)family; (void)sock; (void)address;
    return -2;
}
#else
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#define OBSLOOP_WIRE 1
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif
#if defined(__linux__) && defined(__LP64__)
/* The C library's functions are points where a thread may be cancelled, which takes as long as the rest of the call. */
#include <sys/syscall.h>
#include <unistd.h>
static inline Py_ssize_t obsloop_recv(int fd, void *p, size_t n) {
    return syscall(SYS_recvfrom, fd, p, n, MSG_DONTWAIT, NULL, NULL);
}
static inline Py_ssize_t obsloop_send(int fd, const void *p, size_t n) {
    return syscall(SYS_sendto, fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
}
#else
static inline Py_ssize_t obsloop_recv(int fd, void *p, size_t n) { return recv(fd, p, n, MSG_DONTWAIT); }
static inline Py_ssize_t obsloop_send(int fd, const void *p, size_t n) {
    return send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
}
#endif
static inline int obsloop_would_block(int e) { return e == EAGAIN || e == EWOULDBLOCK || e == EINTR; }

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} obsloop_address;

/* Receive a datagram; *from gets the sender's address as Python's sockets show it, NULL with an error set on a failure. */
static Py_ssize_t obsloop_recvfrom(int fd, void *p, size_t n, PyObject **from) {
    obsloop_address a;
    socklen_t size = sizeof(a);
    char text[INET6_ADDRSTRLEN] = "";
    Py_ssize_t found = recvfrom(fd, p, n, MSG_DONTWAIT, &a.any, &size);
    if (found < 0) return found;
    if (size >= sizeof(a.v4) && a.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &a.v4.sin_addr, text, sizeof(text));
        *from = Py_BuildValue("(si)", text, (int)ntohs(a.v4.sin_port));
    } else if (size >= sizeof(a.v6) && a.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &a.v6.sin6_addr, text, sizeof(text));
        *from = Py_BuildValue("(siII)", text, (int)ntohs(a.v6.sin6_port), (unsigned int)ntohl(a.v6.sin6_flowinfo),
                              (unsigned int)a.v6.sin6_scope_id);
    } else *from = Py_NewRef(Py_None);
    return found;
}

/* Read one number of an address; -1 if it is no plain int from 0 to `most`. */
static long long obsloop_number(PyObject *address, Py_ssize_t i, long long most) {
    PyObject *item = PyTuple_GET_ITEM(address, i);
    int overflow;
    long long n;
    if (!PyLong_CheckExact(item)) return -1;
    n = PyLong_AsLongLongAndOverflow(item, &overflow);
    return overflow || n < 0 || n > most ? -1 : n;
}

/* Read a plain numeric address of this family. Return its size; 0 for any other address, which Python may look up. */
static socklen_t obsloop_parse(int family, PyObject *address, obsloop_address *a) {
    Py_ssize_t length, items;
    const char *host;
    long long port, flow = 0, scope = 0;
    if (!PyTuple_CheckExact(address)) return 0;
    items = PyTuple_GET_SIZE(address);
    if (items != 2 && !(items == 4 && family == AF_INET6)) return 0;
    if (!PyUnicode_CheckExact(PyTuple_GET_ITEM(address, 0)) || !PyUnicode_IS_ASCII(PyTuple_GET_ITEM(address, 0))) return 0;
    host = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(address, 0), &length);
    if (host == NULL) { PyErr_Clear(); return 0; }
    port = obsloop_number(address, 1, 0xffff);
    if (items == 4) {
        flow = obsloop_number(address, 2, 0xfffff);
        scope = obsloop_number(address, 3, 0xffffffffLL);
    }
    if ((size_t)length != strlen(host) || port < 0 || flow < 0 || scope < 0) return 0;
    memset(a, 0, sizeof(*a));
    if (family == AF_INET && inet_pton(AF_INET, host, &a->v4.sin_addr) == 1) {
        a->v4.sin_family = AF_INET;
        a->v4.sin_port = htons((uint16_t)port);
        return sizeof(a->v4);
    }
    if (family == AF_INET6 && inet_pton(AF_INET6, host, &a->v6.sin6_addr) == 1) {
        a->v6.sin6_family = AF_INET6;
        a->v6.sin6_port = htons((uint16_t)port);
        a->v6.sin6_flowinfo = htonl((uint32_t)flow);
        a->v6.sin6_scope_id = (uint32_t)scope;
        return sizeof(a->v6);
    }
    return 0;
}

/* Send a datagram. -2 if the address is not plain, or if an audit hook raised an error, which is set then. */
static Py_ssize_t obsloop_sendto(int fd, const void *p, size_t n, int family, PyObject *sock, PyObject *address) {
    obsloop_address a;
    socklen_t size = obsloop_parse(family, address, &a);
    if (size == 0) return -2;
    if (PySys_Audit("socket.sendto", "OO", sock, address) < 0) return -2;
    return sendto(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL, &a.any, size);
}
#endif

/* Let Cython own a new reference, and raise the error that is set if it is NULL. */
static inline PyObject *obsloop_owned(PyObject *new) { return new; }

/* Read up to `room` bytes without the GIL. None if nothing came: then *n and *code say why.
 *
 * They are copied from a buffer that is kept. A new object of 256 KiB for each read, which then shrinks to what came, is
 * mapped, moved and unmapped by the C library, and the kernel clears its pages: several times as long as the copy. */
#define OBSLOOP_ROOM (1 << 18)

/* A buffer to read into, at the beginning of a page: some processors copy many times slower to an address that is a few
 * bytes further into its page than the source is, and the kernel's data often begins with a page. */
static char *obsloop_buffer(size_t size) {
#if defined(_WIN32)
    return (char *)malloc(size);
#else
    void *found = NULL;
    return posix_memalign(&found, 4096, size) == 0 ? (char *)found : NULL;
#endif
}

static char *obsloop_spare = NULL;  /* a buffer that no thread reads into at this moment */

static PyObject *obsloop_recv_much(int fd, Py_ssize_t room, Py_ssize_t *n, int *code) {
    PyObject *data = NULL;
    size_t size = room > OBSLOOP_ROOM ? (size_t)room : OBSLOOP_ROOM;
    char *buffer = size == OBSLOOP_ROOM ? obsloop_spare : NULL;
    if (buffer != NULL) obsloop_spare = NULL;
    else if ((buffer = obsloop_buffer(size)) == NULL) return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    *n = obsloop_recv(fd, buffer, (size_t)room);
    *code = errno;
    Py_END_ALLOW_THREADS
    if (*n > 0) data = PyBytes_FromStringAndSize(buffer, *n);
    else data = Py_NewRef(Py_None);
    if (size == OBSLOOP_ROOM && obsloop_spare == NULL) obsloop_spare = buffer;
    else free(buffer);
    return data;
}

#endif
