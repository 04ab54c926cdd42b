// A file system that refuses writes, for one folder of one process: tests run as
// root too, whom modes do not hold back, and cannot fill a disk of their own.
//
// Preloaded (LD_PRELOAD) it counts the calls that write below a folder, and lets
// them fail from the N-th on. Built and used by tests/suite/faults/failing_writer.rs.
//
//   FAULT_DIR    the folder, without symbolic links
//   FAULT_ERRNO  the errno, as a number
//   FAULT_FROM   the first call that fails, from 1
//   FAULT_ONLY   if set, that call alone fails
//   FAULT_LOG    a file outside the folder; a line `call path` for each that failed
//
// Each process counts for itself. With EROFS the calls that only need room to
// free something (unlink, chmod, ...) are refused too, as such a file system does.
// A program that makes system calls without the C library is not seen: the
// rename of the `tempfile` crate is such a one.

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <fcntl.h>
#include <atomic>
#include <string>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

struct Plan {
    std::string dir, log;
    int error = 0;
    long from = 0;
    bool only = false;

    Plan() {
        const char *folder = getenv("FAULT_DIR");
        if (!folder) return;
        dir = folder;
        if (const char *text = getenv("FAULT_ERRNO")) error = atoi(text);
        if (const char *text = getenv("FAULT_FROM")) from = atol(text);
        if (const char *text = getenv("FAULT_LOG")) log = text;
        only = getenv("FAULT_ONLY") != nullptr;
    }
};

const Plan &plan() {
    // Never destroyed: threads may write while the process ends.
    static const Plan *the_plan = new Plan;
    return *the_plan;
}

std::atomic<long> calls{0};

bool below(const std::string &path) {
    const std::string &dir = plan().dir;
    return path.compare(0, dir.size(), dir) == 0 &&
           (path.size() == dir.size() || path[dir.size()] == '/');
}

std::string path_of(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path);
    return length > 0 ? std::string(path, static_cast<size_t>(length)) : std::string();
}

std::string absolute(int folder, const char *path) {
    if (!path) return {};
    if (path[0] == '/') return path;
    if (folder != AT_FDCWD) return path_of(folder) + "/" + path;
    char here[PATH_MAX];
    return syscall(SYS_getcwd, here, sizeof here) > 0 ? std::string(here) + "/" + path : path;
}

// Whether this call fails; errno is set then.
bool fails(const char *call, const std::string &path) {
    const Plan &p = plan();
    if (p.dir.empty() || p.from <= 0 || !below(path)) return false;
    long number = ++calls;
    if (p.only ? number != p.from : number < p.from) return false;
    if (!p.log.empty()) {
        int fd = static_cast<int>(syscall(SYS_openat, AT_FDCWD, p.log.c_str(),
                                          O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
        if (fd >= 0) {
            std::string line = std::string(call) + " " + path + "\n";
            if (syscall(SYS_write, fd, line.data(), line.size()) < 0) abort();
            syscall(SYS_close, fd);
        }
    }
    errno = p.error;
    return true;
}

bool fails(const char *call, int fd) { return !plan().dir.empty() && fails(call, path_of(fd)); }

bool fails(const char *call, int folder, const char *path) {
    return !plan().dir.empty() && fails(call, absolute(folder, path));
}

bool read_only() { return plan().error == EROFS; }

template <typename F> F next(F, const char *name) {
    return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

bool writes(int flags) {
    return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)) != 0;
}

mode_t mode_of(int flags, va_list list) {
    return (flags & (O_CREAT | O_TMPFILE)) ? va_arg(list, mode_t) : 0;
}

}  // namespace

#define NEXT(name) static const auto real = next(&name, #name)

// Opening what exists for writing is a write; EROFS also refuses to make nothing new.
#define OPEN(name)                                                   \
    int name(const char *path, int flags, ...) {                     \
        NEXT(name);                                                  \
        va_list list;                                                \
        va_start(list, flags);                                       \
        mode_t mode = mode_of(flags, list);                          \
        va_end(list);                                                \
        if (writes(flags) && fails(#name, AT_FDCWD, path)) return -1; \
        return real(path, flags, mode);                              \
    }
#define OPENAT(name)                                                 \
    int name(int folder, const char *path, int flags, ...) {         \
        NEXT(name);                                                  \
        va_list list;                                                \
        va_start(list, flags);                                       \
        mode_t mode = mode_of(flags, list);                          \
        va_end(list);                                                \
        if (writes(flags) && fails(#name, folder, path)) return -1;  \
        return real(folder, path, flags, mode);                      \
    }

#pragma GCC diagnostic ignored "-Wnonnull-compare"
extern "C" {

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

ssize_t write(int fd, const void *bytes, size_t size) {
    NEXT(write);
    return fails("write", fd) ? -1 : real(fd, bytes, size);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT(writev);
    return fails("writev", fd) ? -1 : real(fd, parts, count);
}
ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) {
    NEXT(pwrite);
    return fails("pwrite", fd) ? -1 : real(fd, bytes, size, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
    NEXT(pwrite64);
    return fails("pwrite64", fd) ? -1 : real(fd, bytes, size, at);
}
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t size,
                        unsigned flags) {
    NEXT(copy_file_range);
    return fails("copy_file_range", to) ? -1 : real(from, from_at, to, to_at, size, flags);
}
int fsync(int fd) {
    NEXT(fsync);
    return fails("fsync", fd) ? -1 : real(fd);
}
int fdatasync(int fd) {
    NEXT(fdatasync);
    return fails("fdatasync", fd) ? -1 : real(fd);
}
int ftruncate(int fd, off_t size) noexcept {
    NEXT(ftruncate);
    return fails("ftruncate", fd) ? -1 : real(fd, size);
}
int ftruncate64(int fd, off64_t size) noexcept {
    NEXT(ftruncate64);
    return fails("ftruncate64", fd) ? -1 : real(fd, size);
}
int mkdir(const char *path, mode_t mode) noexcept {
    NEXT(mkdir);
    struct stat there;
    // A folder that exists is told as such by a read-only file system too.
    if (fstatat(AT_FDCWD, path, &there, 0) != 0 && fails("mkdir", AT_FDCWD, path)) return -1;
    return real(path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) noexcept {
    NEXT(mkdirat);
    struct stat there;
    if (fstatat(folder, path, &there, 0) != 0 && fails("mkdirat", folder, path)) return -1;
    return real(folder, path, mode);
}
int rename(const char *from, const char *to) noexcept {
    NEXT(rename);
    return fails("rename", AT_FDCWD, to) ? -1 : real(from, to);
}
int renameat(int from_dir, const char *from, int to_dir, const char *to) noexcept {
    NEXT(renameat);
    return fails("renameat", to_dir, to) ? -1 : real(from_dir, from, to_dir, to);
}
int link(const char *from, const char *to) noexcept {
    NEXT(link);
    return fails("link", AT_FDCWD, to) ? -1 : real(from, to);
}
int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) noexcept {
    NEXT(linkat);
    return fails("linkat", to_dir, to) ? -1 : real(from_dir, from, to_dir, to, flags);
}

// What frees room works on a full disk, and not on a read-only one.
int unlink(const char *path) noexcept {
    NEXT(unlink);
    return read_only() && fails("unlink", AT_FDCWD, path) ? -1 : real(path);
}
int unlinkat(int folder, const char *path, int flags) noexcept {
    NEXT(unlinkat);
    return read_only() && fails("unlinkat", folder, path) ? -1 : real(folder, path, flags);
}
int rmdir(const char *path) noexcept {
    NEXT(rmdir);
    return read_only() && fails("rmdir", AT_FDCWD, path) ? -1 : real(path);
}
int chmod(const char *path, mode_t mode) noexcept {
    NEXT(chmod);
    return read_only() && fails("chmod", AT_FDCWD, path) ? -1 : real(path, mode);
}
int fchmod(int fd, mode_t mode) noexcept {
    NEXT(fchmod);
    return read_only() && fails("fchmod", fd) ? -1 : real(fd, mode);
}
int futimens(int fd, const struct timespec times[2]) noexcept {
    NEXT(futimens);
    return read_only() && fails("futimens", fd) ? -1 : real(fd, times);
}
int utimensat(int folder, const char *path, const struct timespec times[2], int flags) noexcept {
    NEXT(utimensat);
    return read_only() && fails("utimensat", folder, path) ? -1 : real(folder, path, times, flags);
}

}  // extern "C"
