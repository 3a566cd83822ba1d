/* Loaded into a writer process by LD_PRELOAD: sees every call that changes files under one folder,
 * logs it, and can end the process or make calls fail at a chosen one. Nothing happens before
 * faults_arm(). A page cache outlives a killed process, so syncing is only pretended: it is counted,
 * logged and can fail, but hundreds of runs do not wait for a disk.
 *
 * One line of the log a call: begin, end (ticks), name, result (0 or -errno), path, second path,
 * separated by tabs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE = 1, SYNC = 2, CREATE = 4, NAME = 8, REMOVE = 16, OTHER = 32 };
enum action { NOTHING, KILL_BEFORE, KILL_AFTER, KILL_TORN, FAIL, FAIL_TORN };

static char root[PATH_MAX];
static size_t root_length;
static enum action action;
static int kinds, failure, log_file = -1;
static long at_call;
static atomic_long calls, ticks;

/* Arm the shim: `what` happens at call number `nth` (from 1) of those in the mask `which`; failures
 * go on from there with errno `error`. */
void faults_arm(const char *folder, int what, int which, long nth, int error, const char *log)
{
    snprintf(root, sizeof root, "%s", folder);
    action = (enum action)what;
    kinds = which;
    at_call = nth;
    failure = error;
    atomic_store(&calls, 0);
    log_file = (int)syscall(SYS_openat, AT_FDCWD, log,
                            O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_file < 0)
        abort();
    root_length = strlen(root);
}

static int inside(const char *path)
{
    return root_length && strncmp(path, root, root_length) == 0
        && (path[root_length] == '/' || path[root_length] == 0);
}

static void path_of(int descriptor, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

static void path_at(int folder, const char *name, char *path)
{
    char base[PATH_MAX] = "";
    if (name[0] != '/') {
        if (folder == AT_FDCWD)
            (void)!getcwd(base, sizeof base);
        else
            path_of(folder, base);
    }
    if (base[0])
        snprintf(path, PATH_MAX, "%s/%s", base, name);
    else
        snprintf(path, PATH_MAX, "%s", name);
}

struct call {
    const char *name, *path, *second;
    long begin;
    int watched, die_after, torn;
};

/* Count the call; end the process here if it is to end before it. Returns 0, or the errno that the
 * call is to fail with. */
static int begin(struct call *call, enum kind kind)
{
    int saved = errno;
    call->watched = inside(call->path) || (call->second[0] && inside(call->second));
    call->die_after = call->torn = 0;
    if (!call->watched)
        return 0;
    call->begin = atomic_fetch_add(&ticks, 1);
    errno = saved;
    if (action == NOTHING || !(kinds & (int)kind))
        return 0;
    long number = atomic_fetch_add(&calls, 1) + 1;
    int here = number == at_call;
    switch (action) {
    case KILL_BEFORE:
        if (here)
            kill(getpid(), SIGKILL);
        break;
    case KILL_AFTER:
        call->die_after = here;
        break;
    case KILL_TORN:
        call->torn = call->die_after = here && kind == WRITE;
        if (here && kind != WRITE)
            kill(getpid(), SIGKILL);
        break;
    case FAIL:
        return number >= at_call ? failure : 0;
    case FAIL_TORN: /* a part of the data still goes to disk */
        call->torn = here && kind == WRITE;
        return number >= at_call && !call->torn ? failure : 0;
    default:
        break;
    }
    return 0;
}

static void end(struct call *call, int failed)
{
    if (!call->watched)
        return;
    int saved = errno;
    char line[3 * PATH_MAX];
    int length = snprintf(line, sizeof line, "%ld\t%ld\t%s\t%d\t%s\t%s\n", call->begin,
                          (long)atomic_fetch_add(&ticks, 1), call->name, failed ? -saved : 0,
                          call->path, call->second);
    syscall(SYS_write, log_file, line, length);
    if (call->die_after)
        kill(getpid(), SIGKILL);
    errno = saved;
}

#define REAL(type, name, ...)                                                                      \
    static type (*real)(__VA_ARGS__);                                                              \
    if (!real)                                                                                     \
    real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

/* Run the call between begin() and end(), with its failure if it is to fail. */
#define AROUND(type, kind, label, one, two, expression)                                            \
    struct call call = {.name = label, .path = one, .second = two};                                \
    int error = begin(&call, kind);                                                                \
    type result = -1;                                                                              \
    if (error)                                                                                     \
        errno = error;                                                                             \
    else                                                                                           \
        result = (expression);                                                                     \
    end(&call, result < 0);                                                                        \
    return result

static size_t part(const struct call *call, size_t size)
{
    return call->torn && size > 1 ? size / 2 : size;
}

#define OPENS(function, symbol)                                                                    \
    int function(const char *name, int flags, ...)                                                 \
    {                                                                                              \
        REAL(int, symbol, const char *, int, ...);                                                 \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;                    \
        va_end(more);                                                                              \
        if (!(flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)))                                    \
            return real(name, flags, mode);                                                        \
        char path[PATH_MAX];                                                                       \
        path_at(AT_FDCWD, name, path);                                                             \
        AROUND(int, CREATE, "open", path, "", real(name, flags, mode));                            \
    }
OPENS(open, "open")
OPENS(open64, "open64")

#define OPENS_AT(function, symbol)                                                                 \
    int function(int folder, const char *name, int flags, ...)                                     \
    {                                                                                              \
        REAL(int, symbol, int, const char *, int, ...);                                            \
        va_list more;                                                                              \
        va_start(more, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;                    \
        va_end(more);                                                                              \
        if (!(flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)))                                    \
            return real(folder, name, flags, mode);                                                \
        char path[PATH_MAX];                                                                       \
        path_at(folder, name, path);                                                               \
        AROUND(int, CREATE, "open", path, "", real(folder, name, flags, mode));                    \
    }
OPENS_AT(openat, "openat")
OPENS_AT(openat64, "openat64")

ssize_t write(int file, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    char path[PATH_MAX];
    path_of(file, path);
    AROUND(ssize_t, WRITE, "write", path, "", real(file, data, part(&call, size)));
}

#define WRITES_AT(function, symbol, offset_type)                                                   \
    ssize_t function(int file, const void *data, size_t size, offset_type offset)                  \
    {                                                                                              \
        REAL(ssize_t, symbol, int, const void *, size_t, offset_type);                             \
        char path[PATH_MAX];                                                                       \
        path_of(file, path);                                                                       \
        AROUND(ssize_t, WRITE, "write", path, "", real(file, data, part(&call, size), offset));    \
    }
WRITES_AT(pwrite, "pwrite", off_t)
WRITES_AT(pwrite64, "pwrite64", off64_t)

ssize_t writev(int file, const struct iovec *parts, int count)
{
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    char path[PATH_MAX];
    path_of(file, path);
    AROUND(ssize_t, WRITE, "write", path, "", real(file, parts, call.torn ? (count + 1) / 2 : count));
}

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags)
{
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    char path[PATH_MAX];
    path_of(out, path);
    AROUND(ssize_t, WRITE, "write", path, "", real(in, from, out, to, part(&call, size), flags));
}

#define SENDS(function, symbol, offset_type)                                                       \
    ssize_t function(int out, int in, offset_type *from, size_t size)                              \
    {                                                                                              \
        REAL(ssize_t, symbol, int, int, offset_type *, size_t);                                    \
        char path[PATH_MAX];                                                                       \
        path_of(out, path);                                                                        \
        AROUND(ssize_t, WRITE, "write", path, "", real(out, in, from, part(&call, size)));         \
    }
SENDS(sendfile, "sendfile", off_t)
SENDS(sendfile64, "sendfile64", off64_t)

#define ON_FILE(function, symbol, kind, label, parameters, types, pass)                            \
    int function parameters                                                                        \
    {                                                                                              \
        REAL(int, symbol, types);                                                                  \
        (void)real;                                                                                \
        char path[PATH_MAX];                                                                       \
        path_of(file, path);                                                                       \
        AROUND(int, kind, label, path, "", pass);                                                  \
    }
#define TYPES(...) __VA_ARGS__
/* Under the folder syncing is pretended, elsewhere it is real. */
ON_FILE(fsync, "fsync", SYNC, "fsync", (int file), int, call.watched ? 0 : real(file))
ON_FILE(fdatasync, "fdatasync", SYNC, "fsync", (int file), int, call.watched ? 0 : real(file))
ON_FILE(syncfs, "syncfs", SYNC, "syncfs", (int file), int, call.watched ? 0 : real(file))
ON_FILE(sync_file_range, "sync_file_range", SYNC, "sync_file_range",
        (int file, off64_t from, off64_t size, unsigned flags), TYPES(int, off64_t, off64_t, unsigned),
        call.watched ? 0 : real(file, from, size, flags))
ON_FILE(fchmod, "fchmod", OTHER, "chmod", (int file, mode_t mode), TYPES(int, mode_t),
        real(file, mode))
ON_FILE(ftruncate, "ftruncate", WRITE, "write", (int file, off_t size), TYPES(int, off_t),
        real(file, size))
ON_FILE(ftruncate64, "ftruncate64", WRITE, "write", (int file, off64_t size), TYPES(int, off64_t),
        real(file, size))
ON_FILE(fallocate, "fallocate", WRITE, "write", (int file, int mode, off_t from, off_t size),
        TYPES(int, int, off_t, off_t), real(file, mode, from, size))
ON_FILE(fallocate64, "fallocate64", WRITE, "write", (int file, int mode, off64_t from, off64_t size),
        TYPES(int, int, off64_t, off64_t), real(file, mode, from, size))

int rename(const char *from, const char *to)
{
    REAL(int, "rename", const char *, const char *);
    char one[PATH_MAX], two[PATH_MAX];
    path_at(AT_FDCWD, from, one);
    path_at(AT_FDCWD, to, two);
    AROUND(int, NAME, "rename", one, two, real(from, to));
}

int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
    REAL(int, "renameat", int, const char *, int, const char *);
    char one[PATH_MAX], two[PATH_MAX];
    path_at(from_folder, from, one);
    path_at(to_folder, to, two);
    AROUND(int, NAME, "rename", one, two, real(from_folder, from, to_folder, to));
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned);
    char one[PATH_MAX], two[PATH_MAX];
    path_at(from_folder, from, one);
    path_at(to_folder, to, two);
    AROUND(int, NAME, "rename", one, two, real(from_folder, from, to_folder, to, flags));
}

int link(const char *from, const char *to)
{
    REAL(int, "link", const char *, const char *);
    char one[PATH_MAX], two[PATH_MAX];
    path_at(AT_FDCWD, from, one);
    path_at(AT_FDCWD, to, two);
    AROUND(int, NAME, "link", one, two, real(from, to));
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    REAL(int, "linkat", int, const char *, int, const char *, int);
    char one[PATH_MAX], two[PATH_MAX];
    path_at(from_folder, from, one);
    path_at(to_folder, to, two);
    AROUND(int, NAME, "link", one, two, real(from_folder, from, to_folder, to, flags));
}

int symlinkat(const char *from, int folder, const char *to)
{
    REAL(int, "symlinkat", const char *, int, const char *);
    char two[PATH_MAX];
    path_at(folder, to, two);
    AROUND(int, NAME, "symlink", "", two, real(from, folder, to));
}

#define ON_NAME(function, symbol, kind, label, parameters, types, folder, pass)                    \
    int function parameters                                                                        \
    {                                                                                              \
        REAL(int, symbol, types);                                                                  \
        char path[PATH_MAX];                                                                       \
        path_at(folder, name, path);                                                               \
        AROUND(int, kind, label, path, "", pass);                                                  \
    }
ON_NAME(unlink, "unlink", REMOVE, "unlink", (const char *name), const char *, AT_FDCWD, real(name))
ON_NAME(unlinkat, "unlinkat", REMOVE, "unlink", (int at, const char *name, int flags),
        TYPES(int, const char *, int), at, real(at, name, flags))
ON_NAME(rmdir, "rmdir", REMOVE, "unlink", (const char *name), const char *, AT_FDCWD, real(name))
ON_NAME(mkdir, "mkdir", CREATE, "mkdir", (const char *name, mode_t mode), TYPES(const char *, mode_t),
        AT_FDCWD, real(name, mode))
ON_NAME(mkdirat, "mkdirat", CREATE, "mkdir", (int at, const char *name, mode_t mode),
        TYPES(int, const char *, mode_t), at, real(at, name, mode))
ON_NAME(chmod, "chmod", OTHER, "chmod", (const char *name, mode_t mode), TYPES(const char *, mode_t),
        AT_FDCWD, real(name, mode))
ON_NAME(fchmodat, "fchmodat", OTHER, "chmod", (int at, const char *name, mode_t mode, int flags),
        TYPES(int, const char *, mode_t, int), at, real(at, name, mode, flags))
ON_NAME(truncate, "truncate", WRITE, "write", (const char *name, off_t size),
        TYPES(const char *, off_t), AT_FDCWD, real(name, size))
