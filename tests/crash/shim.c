/* Counts the file operations below a folder, and at one of them kills the process or refuses: preloaded with LD_PRELOAD.
   A write that is the one is done by half first. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, REFUSE };

static char prefix[4096];
static long counted, chosen;
static int mode, refusal;
static char watched[4096]; /* descriptors of files and folders below the prefix */

void fault_arm(const char *below, long at, int what, int error) {
    strncpy(prefix, below, sizeof prefix - 1);
    counted = 0; chosen = at; mode = what; refusal = error;
}
long fault_count(void) { return counted; }

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int is_watched(int fd) { return fd >= 0 && fd < (int)sizeof watched && watched[fd]; }
static int below(int dir, const char *path) {
    if (!prefix[0] || !path) return 0;
    if (path[0] == '/') return strncmp(path, prefix, strlen(prefix)) == 0;
    return dir != AT_FDCWD && is_watched(dir);
}
static void mark(int fd, int yes) { if (fd >= 0 && fd < (int)sizeof watched) watched[fd] = yes; }
/* Whether the operation is to be refused. A full disk stays full; what is freed or renamed needs no space. */
static int hit_by(int needs_space, const char *operation) {
    if (!prefix[0]) return 0;
    counted++;
    if (mode == KILL && counted == chosen) kill(getpid(), SIGKILL);
    if (mode == REFUSE && (refusal == ENOSPC ? counted >= chosen && needs_space : counted == chosen)) {
        dprintf(2, "refused: %s\n", operation);
        errno = refusal;
        return 1;
    }
    return 0;
}

#define hit(needs_space) hit_by(needs_space, __func__)

static int open_common(int (*real)(int, const char *, int, ...), int dir, const char *path, int flags, mode_t bits) {
    int ours = below(dir, path);
    if (ours && (flags & (O_CREAT | O_TRUNC)) && hit(1)) return -1;
    int fd = real(dir, path, flags, bits);
    mark(fd, ours);
    return fd;
}
#define BITS(flags, bits) \
    mode_t bits = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); bits = va_arg(list, mode_t); va_end(list); }
int open(const char *path, int flags, ...) { REAL(openat); BITS(flags, bits) return open_common(real, AT_FDCWD, path, flags, bits); }
int open64(const char *path, int flags, ...) { REAL(openat); BITS(flags, bits) return open_common(real, AT_FDCWD, path, flags | O_LARGEFILE, bits); }
int openat(int dir, const char *path, int flags, ...) { REAL(openat); BITS(flags, bits) return open_common(real, dir, path, flags, bits); }
int openat64(int dir, const char *path, int flags, ...) { REAL(openat); BITS(flags, bits) return open_common(real, dir, path, flags | O_LARGEFILE, bits); }
int close(int fd) { REAL(close); mark(fd, 0); return real(fd); }

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (is_watched(fd)) {
        if (mode == KILL && counted + 1 == chosen) { real(fd, data, size / 2); }
        if (hit(1)) return -1;
    }
    return real(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    if (is_watched(fd)) {
        if (mode == KILL && counted + 1 == chosen) { real(fd, parts, count / 2); }
        if (hit(1)) return -1;
    }
    return real(fd, parts, count);
}
ssize_t sendfile(int to, int from, off_t *at, size_t size) {
    REAL(sendfile);
    if (is_watched(to)) {
        if (mode == KILL && counted + 1 == chosen) { real(to, from, at, 100); }
        if (hit(1)) return -1;
    }
    return real(to, from, at, size);
}
ssize_t sendfile64(int to, int from, off_t *at, size_t size) { return sendfile(to, from, at, size); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); return is_watched(fd) && hit(1) ? -1 : real(fd, size); }
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }
int fsync(int fd) { REAL(fsync); return is_watched(fd) && hit(1) ? -1 : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return is_watched(fd) && hit(1) ? -1 : real(fd); }
int rename(const char *a, const char *b) { REAL(rename); return below(AT_FDCWD, b) && hit(0) ? -1 : real(a, b); }
int renameat(int da, const char *a, int db, const char *b) { REAL(renameat); return below(db, b) && hit(0) ? -1 : real(da, a, db, b); }
int renameat2(int da, const char *a, int db, const char *b, unsigned flags) {
    REAL(renameat2);
    return below(db, b) && hit(0) ? -1 : real(da, a, db, b, flags);
}
/* Making a folder that is there does nothing and fails anyway: no operation of a save. */
int mkdir(const char *path, mode_t bits) {
    REAL(mkdir);
    return below(AT_FDCWD, path) && access(path, F_OK) && hit(1) ? -1 : real(path, bits);
}
int unlink(const char *path) { REAL(unlink); return below(AT_FDCWD, path) && hit(0) ? -1 : real(path); }
int unlinkat(int dir, const char *path, int flags) { REAL(unlinkat); return below(dir, path) && hit(0) ? -1 : real(dir, path, flags); }
int rmdir(const char *path) { REAL(rmdir); return below(AT_FDCWD, path) && hit(0) ? -1 : real(path); }
